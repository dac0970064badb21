//! Where the requests of a connection begin and end, as its bytes come. So each head is looked at before the
//! parser that comes after has it, and one that is refused is told why, also behind other requests.

use super::head::{self, BodyLength, Fault, LONGEST};

/// Follows the bytes of a connection, from the beginning of a request on.
#[derive(Default)]
pub struct Framing {
    at: At,
    /// As much of a head as has come.
    head: Vec<u8>,
    /// Nothing follows the request.
    is_last: bool,
}

#[derive(Default)]
enum At {
    #[default]
    Head,
    /// So many bytes of a body are to come.
    Body(u64),
    Chunks(Chunk),
    /// What comes is nobody's to look at: the connection has become something else, or what came will be
    /// refused by who reads it.
    Through,
    /// What comes is not read any more.
    Refused,
}

/// Within a body in chunks. What is none the parser finds as well, and ends the connection with it.
enum Chunk {
    Size {
        size: u64,
        has_digits: bool,
    },
    AfterSize(u64),
    Extension(u64),
    SizeFeed(u64),
    Data(u64),
    DataReturn,
    DataFeed,
    /// At the beginning of a line behind the last chunk.
    Trailer,
    TrailerLine,
    TrailerFeed,
    LastFeed,
    End,
}

const FIRST: Chunk = Chunk::Size { size: 0, has_digits: false };

/// What comes next, as far as is known.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// More of a head, which is to be [taken](Framing::take).
    Head,
    /// What is to be [passed](Framing::pass).
    Body,
    Nothing,
}

/// A whole head, and what has come behind it.
pub type Come = (Vec<u8>, Vec<u8>);

impl Framing {
    pub fn next(&self) -> Next {
        match self.at {
            At::Head => Next::Head,
            At::Body(_) | At::Chunks(_) | At::Through => Next::Body,
            At::Refused => Next::Nothing,
        }
    }

    /// What of a head has come and is not whole.
    pub fn into_begun(self) -> Vec<u8> {
        self.head
    }

    /// Takes bytes of a head. Once that is whole it is given, and what came behind it.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Option<Come>, Fault> {
        let taken = self.try_to_take(bytes);
        if taken.is_err() {
            (self.at, self.head) = (At::Refused, Vec::new());
        }
        taken
    }

    fn try_to_take(&mut self, bytes: &[u8]) -> Result<Option<Come>, Fault> {
        let seen = self.head.len();
        self.head.extend_from_slice(bytes);
        if seen == 0 {
            // Empty lines before a head are not a part of it.
            let empty = self.head.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            self.head.drain(..empty);
        }
        let Some(first) = self.head.first() else { return Ok(None) };
        let may_be_whole = head::has_empty_line(&self.head[seen.min(self.head.len()).saturating_sub(3)..]);
        if (may_be_whole || !first.is_ascii_uppercase())
            && let Some(whole) = head::judge(&self.head)?
        {
            let behind = self.head.split_off(whole.length);
            self.is_last = whole.is_last;
            self.at = match whole.body {
                _ if whole.may_change => At::Through,
                BodyLength::Bytes(0) => self.behind(),
                BodyLength::Bytes(length) => At::Body(length),
                BodyLength::Chunked => At::Chunks(FIRST),
            };
            return Ok(Some((std::mem::take(&mut self.head), behind)));
        }
        if self.head.len() >= LONGEST { Err(Fault::TooLong) } else { Ok(None) }
    }

    /// What comes behind a request.
    fn behind(&self) -> At {
        if self.is_last { At::Through } else { At::Head }
    }

    /// How many of these bytes belong to the request, and no further one.
    pub fn pass(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            match &mut self.at {
                At::Through => return bytes.len(),
                At::Head | At::Refused => break,
                At::Body(left) => {
                    let passed = (bytes.len() - at).min(usize::try_from(*left).unwrap_or(usize::MAX));
                    at += passed;
                    *left -= passed as u64;
                    if *left == 0 {
                        self.at = self.behind();
                    }
                }
                At::Chunks(Chunk::Data(left)) => {
                    let passed = (bytes.len() - at).min(usize::try_from(*left).unwrap_or(usize::MAX));
                    at += passed;
                    *left -= passed as u64;
                    if *left == 0 {
                        self.at = At::Chunks(Chunk::DataReturn);
                    }
                }
                At::Chunks(chunk) => {
                    let byte = bytes[at];
                    at += 1;
                    self.at = match chunk.after(byte) {
                        Some(Chunk::End) => self.behind(),
                        Some(chunk) => At::Chunks(chunk),
                        None => At::Through,
                    };
                }
            }
        }
        at
    }
}

impl Chunk {
    /// [`None`] for what is no chunk; as strict as the parser that comes after.
    fn after(&self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Size { size, .. }, digit) if digit.is_ascii_hexdigit() => {
                let digit = char::from(digit).to_digit(16).unwrap_or_default();
                let size = size.checked_mul(16).and_then(|size| size.checked_add(u64::from(digit)))?;
                Self::Size { size, has_digits: true }
            }
            (Self::Size { size, has_digits: true } | Self::AfterSize(size), b'\t' | b' ') => Self::AfterSize(*size),
            (Self::Size { size, has_digits: true } | Self::AfterSize(size), b';') => Self::Extension(*size),
            (Self::Size { size, has_digits: true } | Self::AfterSize(size) | Self::Extension(size), b'\r') => {
                Self::SizeFeed(*size)
            }
            (Self::Extension(size), byte) if byte != b'\n' => Self::Extension(*size),
            (Self::SizeFeed(0), b'\n') => Self::Trailer,
            (Self::SizeFeed(size), b'\n') => Self::Data(*size),
            (Self::DataReturn, b'\r') => Self::DataFeed,
            (Self::DataFeed, b'\n') => FIRST,
            (Self::Trailer, b'\r') => Self::LastFeed,
            (Self::Trailer | Self::TrailerLine, byte) if byte != b'\r' => Self::TrailerLine,
            (Self::TrailerLine, b'\r') => Self::TrailerFeed,
            (Self::TrailerFeed, b'\n') => Self::Trailer,
            (Self::LastFeed, b'\n') => Self::End,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    const LONG: &str = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n";
    const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    const CHUNKS: &str = "3;a=\"b\"\r\nabc\r\n00A \r\n0123456789\r\n0\r\nDigest: x\r\nb: c\r\n\r\n";

    /// The heads that were found in these pieces, each with its body, and how it ended.
    fn requests(pieces: &[&[u8]]) -> (Vec<String>, Option<Fault>) {
        let (mut framing, mut found) = (Framing::default(), vec![]);
        for piece in pieces {
            let mut rest = piece.to_vec();
            while !rest.is_empty() {
                match framing.next() {
                    Next::Head => match framing.take(&rest) {
                        Ok(Some((head, behind))) => {
                            found.push(String::from_utf8(head).unwrap());
                            rest = behind;
                        }
                        Ok(None) => break,
                        Err(fault) => return (found, Some(fault)),
                    },
                    Next::Body => {
                        let passed = framing.pass(&rest);
                        found.last_mut().unwrap().push_str(std::str::from_utf8(&rest[..passed]).unwrap());
                        rest.drain(..passed);
                    }
                    Next::Nothing => unreachable!("a fault ends it"),
                }
            }
        }
        (found, None)
    }

    #[test]
    fn a_fault_is_found_behind_any_request() {
        for before in [GET.to_owned(), format!("{LONG}12345"), format!("{CHUNKED}{CHUNKS}")] {
            for (bad, expected) in [
                ("GET / HTTP/1.1\r\n\r\n", Fault::NotHttp("HTTP/1.1 asks for the header Host".into())),
                ("GET /> HTTP/1.1\r\nHost: x\r\n\r\n", Fault::NoUrl),
                ("{", Fault::NotHttp("invalid token".into())),
                (&"A".repeat(LONGEST), Fault::TooLong),
            ] {
                let (found, fault) = requests(&[before.as_bytes(), bad.as_bytes()]);
                assert_eq!((found, fault.as_ref()), (vec![before.clone()], Some(&expected)));
                let (found, fault) = requests(&[format!("{before}\r\n{before}{bad}").as_bytes()]);
                assert_eq!((found, fault), (vec![before.clone(), before.clone()], Some(expected)));
            }
        }
    }

    #[test]
    fn what_is_no_http_any_more_goes_through() {
        let upgrade = "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n";
        let last = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        assert_eq!(requests(&[format!("{last}{{").as_bytes()]), (vec![format!("{last}{{")], None));
        let frames = "\u{1}{ GET / HTTP/1.1\r\n\r\n";
        assert_eq!(requests(&[format!("{upgrade}{frames}").as_bytes()]), (vec![format!("{upgrade}{frames}")], None));
        // What the parser refuses it shall have.
        for bad in ["x\r\n", "\r\n", "3\n", "3\r\nabcd", "3;\n", "fffffffffffffffff\r\n", "0\r\na\r\r", "3 3\r\n"] {
            let all = format!("{CHUNKED}{bad}{{ and more");
            assert_eq!(requests(&[all.as_bytes()]), (vec![all.clone()], None), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn requests_are_found_however_they_are_cut(
            kinds in proptest::collection::vec(0..3usize, 1..5),
            cuts in proptest::collection::btree_set(1..600usize, 0..12),
        ) {
            let each: Vec<_> = kinds
                .iter()
                .map(|kind| [GET.to_owned(), format!("{LONG}12345"), format!("{CHUNKED}{CHUNKS}")][*kind].clone())
                .collect();
            let all = each.concat();
            let mut pieces = vec![];
            let mut from = 0;
            for cut in cuts.into_iter().filter(|cut| *cut < all.len()) {
                pieces.push(&all.as_bytes()[from..cut]);
                from = cut;
            }
            pieces.push(&all.as_bytes()[from..]);
            prop_assert_eq!(requests(&pieces), (each, None));
        }

        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut framing = Framing { at: At::Chunks(FIRST), ..Framing::default() };
            prop_assert!(framing.pass(&bytes) <= bytes.len());
            let _ = Framing::default().take(&bytes);
        }
    }
}
