//! The scanner of NATS_EXTRA_CONFIG, as the settings hand a fragment over.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use unified_nats::nats_conf::fragment::check;
use unified_nats::nats_conf::{Secrets, Surroundings, render};
use unified_nats::settings::Settings;

/// What we write ourselves.
static RENDERED: LazyLock<String> = LazyLock::new(|| {
    let store = std::env::temp_dir();
    let pairs = [("JETSTREAM_STORE_DIR", store.to_str().expect("a temporary directory with a UTF-8 name"))];
    let settings = Settings::load(&pairs, &[]).expect("the defaults are valid").settings;
    render(&settings, &Surroundings::default(), Secrets::Redacted).expect("the defaults can be rendered")
});

fuzz_target!(|fragment: &str| {
    let verdict = check(fragment, &RENDERED);
    // A comment on a line of its own changes nothing.
    assert_eq!(check(&format!("# a comment\n{fragment}"), &RENDERED).is_ok(), verdict.is_ok());
    if verdict.is_ok() {
        // It leaves nothing open that would hide what comes after. The `;` ends a key without value.
        assert!(check(&format!("{fragment}\n;\nport: 1\n"), &RENDERED).is_err(), "what follows is hidden");
    }
});
