//! What nats-server prints. The first byte says how the rest is cut into the chunks that a pipe
//! would hand out; how it is cut must not matter.

#![no_main]

use libfuzzer_sys::fuzz_target;
use unified_nats::supervisor::{Lines, Notice, Recent, ServerLine};

/// `supervisor::output` keeps 16 KiB of a line; each byte that is not UTF-8 becomes three.
const LONGEST: usize = 3 * 16 * 1024;

fn lines<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    let mut cut = Vec::new();
    let mut lines = Lines::default();
    for chunk in chunks {
        lines.push(chunk, |line| cut.push(line.to_owned()));
    }
    lines.finish(|line| cut.push(line.to_owned()));
    cut
}

fuzz_target!(|input: &[u8]| {
    let Some((size, printed)) = input.split_first() else { return };
    let whole = lines(std::iter::once(printed));
    assert_eq!(whole, lines(printed.chunks(usize::from(*size).max(1))));
    let mut recent = Recent::default();
    for line in &whole {
        assert!(!line.is_empty() && line.len() <= LONGEST);
        assert!(line.ends_with(ServerLine::parse(line).message));
        Notice::of(&ServerLine::parse(line));
        recent.push(line);
    }
    recent.tells_of_taken_port();
    assert!(recent.lines().count() <= whole.len());
});
