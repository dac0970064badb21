//! What commands answer on standard output, all of it or not with success.

use std::fmt::Arguments;
use std::io::{self, Write};
use std::sync::OnceLock;

use super::Code;

/// Why a part of the answer is missing.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// Prints a part of the answer.
pub fn say(words: Arguments<'_>, end: &str) {
    let mut output = io::stdout().lock();
    note(output.write_fmt(words).and_then(|()| output.write_all(end.as_bytes())));
}

/// The exit code of a command that has answered: who redirects an answer to a disk that is full has none.
pub fn ended(code: Code) -> Code {
    note(io::stdout().flush());
    match LOST.get() {
        Some(error) if matches!(code, Code::Success | Code::Pending) => {
            complain!("cannot write all of the answer: {error}; see to where standard output leads");
            Code::Failed
        }
        _ => code,
    }
}

/// A reader that has gone is no error: `config show | head` wants no more.
fn note(written: io::Result<()>) {
    if let Err(error) = written
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        // The first one is the reason.
        let _ = LOST.set(error);
    }
}
