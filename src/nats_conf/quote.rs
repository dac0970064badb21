use std::fmt::Write;

/// Writes any bytes as a double-quoted nats.conf string.
///
/// Everything but printable ASCII is escaped as `\xHH`, as are the quote and the backslash. Inside
/// double quotes nats-server expands neither `$NAME` nor anything else (conf/lex.go), so no value
/// can become configuration.
pub fn quote(text: impl AsRef<[u8]>) -> String {
    let bytes = text.as_ref();
    let mut quoted = String::with_capacity(bytes.len() + 2);
    quoted.push('"');
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => {
                let _ = write!(quoted, "\\x{byte:02x}");
            }
            b' '..=b'~' => quoted.push(byte as char),
            _ => {
                let _ = write!(quoted, "\\x{byte:02x}");
            }
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The inverse, by the rules of nats-server's lexer for double-quoted strings.
    fn unquote(quoted: &str) -> Option<Vec<u8>> {
        let inner = quoted.strip_prefix('"')?.strip_suffix('"')?.as_bytes();
        let mut bytes = Vec::new();
        let mut rest = inner;
        while let [first, tail @ ..] = rest {
            (bytes, rest) = match first {
                b'"' => return None,
                b'\\' => {
                    let [b'x', high, low, tail @ ..] = tail else {
                        return None;
                    };
                    let digits = [*high, *low];
                    bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
                    (bytes, tail)
                }
                other => {
                    bytes.push(*other);
                    (bytes, tail)
                }
            };
        }
        Some(bytes)
    }

    proptest! {
        #[test]
        fn any_bytes_come_back_and_stay_on_one_printable_line(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let quoted = quote(&bytes);
            prop_assert!(quoted.bytes().all(|b| (b' '..=b'~').contains(&b)));
            prop_assert_eq!(unquote(&quoted), Some(bytes));
        }
    }

    #[test]
    fn what_looks_like_configuration_is_only_text() {
        assert_eq!(quote("a\"}\ninclude 'x' $HOME \\"), r#""a\x22}\x0ainclude 'x' $HOME \x5c""#);
    }
}
