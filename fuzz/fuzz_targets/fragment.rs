//! The parser of NATS_EXTRA_CONFIG, as the settings hand a fragment over. That nats-server reads
//! what we write as it read what the operator wrote is the part of tests/integration/fragments.rs.

#![no_main]

use libfuzzer_sys::fuzz_target;
use unified_nats::nats_conf::Secrets;
use unified_nats::nats_conf::fragment::Fragment;

fuzz_target!(|text: &str| {
    let fragment = Fragment::read(text);
    // A comment on a line of its own changes nothing, whatever ends the line.
    for end in ['\n', '\r'] {
        // A byte order mark counts at the beginning only.
        if text.starts_with('\u{feff}') {
            break;
        }
        assert_eq!(Fragment::read(&format!("# a comment{end}{text}")).is_ok(), fragment.is_ok());
    }
    let Ok(fragment) = fragment else { return };
    // What we write says the same, and says it in one form only.
    let written = fragment.write(Secrets::Written);
    assert!(written.is_ascii() || !text.is_ascii());
    let again = Fragment::read(&written).expect("what we write can be read");
    assert_eq!(again.write(Secrets::Written), written);
    // It leaves nothing open that would hide or move what comes after.
    for reserved in ["port: 1\n", "no_auth_user: x\n", "jetstream {}\n"] {
        assert!(Fragment::read(&format!("{written}{reserved}")).is_err(), "what follows is hidden");
        assert!(Fragment::read(&format!("{text}\n{reserved}")).is_err(), "what follows is hidden");
    }
});
