//! What nats-server prints. The first byte says how the rest is cut into the chunks that a pipe
//! would hand out; how it is cut must not matter.

#![no_main]

use libfuzzer_sys::fuzz_target;
use unified_nats::supervisor::{Lines, Notice, Piece, Recent, ServerLine};

/// `supervisor::output` hands out 16 KiB at a time; each byte that is not UTF-8 becomes three.
const LONGEST: usize = 3 * 16 * 1024;

fn lines<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Vec<Piece> {
    let mut cut = Vec::new();
    let mut lines = Lines::default();
    for chunk in chunks {
        lines.push(chunk, |piece| cut.push(own(piece)));
    }
    lines.finish(|piece| cut.push(own(piece)));
    cut
}

fn own(piece: Piece<&str>) -> Piece {
    Piece { text: piece.text.to_owned(), begins: piece.begins, ends: piece.ends }
}

fuzz_target!(|input: &[u8]| {
    let Some((size, printed)) = input.split_first() else { return };
    let whole = lines(std::iter::once(printed));
    assert_eq!(whole, lines(printed.chunks(usize::from(*size).max(1))));
    let mut recent = Recent::default();
    let mut previous_ends = true;
    for line in &whole {
        assert!(line.begins || !previous_ends);
        previous_ends = line.ends;
        let line = &line.text;
        assert!(line.len() <= LONGEST);
        assert!(line.ends_with(ServerLine::parse(line).message));
        Notice::of(&ServerLine::parse(line));
        recent.push(line);
    }
    recent.names_taken_port();
    assert!(recent.lines().count() <= whole.len());
});
