//! A look at an operator's nats.conf fragment: which keys it sets at its top level.

/// Keys that nats-server takes for the same thing, lower-cased; the first is the one we write
/// (server/opts.go, `processConfigFileLine`).
const SYNONYMS: &[&[&str]] = &[
    &["host", "net", "listen"],
    &["port", "listen"],
    &["http", "http_port", "monitor_port"],
    &["logtime", "timestamp"],
    &["logtime_utc", "timestamp_utc"],
    &["max_connections", "max_conn"],
    &["max_subscriptions", "max_subs"],
    &["ping_max", "ping_max_out"],
    &["lame_duck_grace_period", "lame_duck_grace"],
    // Its own log file would take nats-server's lines away from the log stream.
    &["logtime", "log_file", "logfile"],
];

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FragmentError {
    /// The fragment sets a key that is written already; `ours` is the key as we write it.
    #[error("the key {key:?} is written as {ours} already")]
    Clash { key: String, ours: String },
    #[error("include is not allowed")]
    Include,
    /// A brace, bracket, quote or block that does not match, as on the line given.
    #[error("something does not match near line {line}")]
    Unbalanced { line: usize },
}

/// Checks `fragment` against the top-level keys of `rendered`, our own part of the file. In
/// nats.conf the last of two equal keys wins without a word, so a clash must be found here.
pub fn check(fragment: &str, rendered: &str) -> Result<(), FragmentError> {
    let ours = top_level_keys(rendered)?;
    for key in top_level_keys(fragment)? {
        if key == "include" {
            return Err(FragmentError::Include);
        }
        let written = ours.iter().find(|our_key| {
            **our_key == key || SYNONYMS.iter().any(|same| same[0] == **our_key && same.contains(&key.as_str()))
        });
        if let Some(our_key) = written {
            return Err(FragmentError::Clash { ours: our_key.clone(), key });
        }
    }
    Ok(())
}

fn top_level_keys(text: &str) -> Result<Vec<String>, FragmentError> {
    let mut scanner = Scanner { bytes: text.as_bytes(), at: 0 };
    let mut keys = Vec::new();
    let mut depth = 0usize;
    // Whether the next word at depth 0 begins a new entry.
    let mut expects_key = true;
    while let Some(token) = scanner.next()? {
        match token {
            Token::Open => depth += 1,
            Token::Close => {
                depth = depth.checked_sub(1).ok_or(FragmentError::Unbalanced { line: scanner.line() })?;
                expects_key |= depth == 0;
            }
            Token::End if depth == 0 => expects_key = true,
            Token::Word(word) if depth == 0 && expects_key => {
                keys.push(word.to_ascii_lowercase());
                // `include 'file'` may stand anywhere, also right after its own argument.
                expects_key = false;
            }
            Token::Word(word) if word.eq_ignore_ascii_case("include") => keys.push("include".into()),
            Token::Word(_) | Token::End => {}
        }
    }
    if depth > 0 {
        return Err(FragmentError::Unbalanced { line: scanner.line() });
    }
    Ok(keys)
}

enum Token {
    Word(String),
    Open,
    Close,
    /// The end of an entry: a new line, a comma or a semicolon.
    End,
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn line(&self) -> usize {
        1 + self.bytes[..self.at.min(self.bytes.len())].iter().filter(|b| **b == b'\n').count()
    }

    fn next(&mut self) -> Result<Option<Token>, FragmentError> {
        while let Some(&byte) = self.bytes.get(self.at) {
            self.at += 1;
            match byte {
                b'\n' | b',' | b';' => return Ok(Some(Token::End)),
                b'{' | b'[' => return Ok(Some(Token::Open)),
                b'}' | b']' => return Ok(Some(Token::Close)),
                b'#' => self.skip_line(),
                b'/' if self.bytes.get(self.at) == Some(&b'/') => self.skip_line(),
                b'"' | b'\'' => return self.quoted(byte).map(Some),
                b'(' => return self.block().map(Some),
                b':' | b'=' => {}
                _ if byte.is_ascii_whitespace() => {}
                _ => return Ok(Some(self.word())),
            }
        }
        Ok(None)
    }

    fn skip_line(&mut self) {
        while self.bytes.get(self.at).is_some_and(|b| *b != b'\n') {
            self.at += 1;
        }
    }

    fn word(&mut self) -> Token {
        let start = self.at - 1;
        let ends = |b: &u8| b.is_ascii_whitespace() || b"{}[](),;:=\"'#".contains(b);
        while self.bytes.get(self.at).is_some_and(|b| !ends(b)) {
            self.at += 1;
        }
        Token::Word(String::from_utf8_lossy(&self.bytes[start..self.at]).into_owned())
    }

    fn quoted(&mut self, quote: u8) -> Result<Token, FragmentError> {
        let line = self.line();
        let start = self.at;
        while let Some(&byte) = self.bytes.get(self.at) {
            self.at += 1;
            if byte == b'\\' && quote == b'"' {
                self.at += 1;
            } else if byte == quote {
                let text = &self.bytes[start..self.at - 1];
                return Ok(Token::Word(String::from_utf8_lossy(text).into_owned()));
            }
        }
        Err(FragmentError::Unbalanced { line })
    }

    /// A block in parentheses holds raw text up to a line that is only `)`.
    fn block(&mut self) -> Result<Token, FragmentError> {
        let line = self.line();
        let rest = &self.bytes[self.at.min(self.bytes.len())..];
        let mut offset = 0;
        for text in rest.split_inclusive(|b| *b == b'\n') {
            offset += text.len();
            if text.trim_ascii() == b")" || (offset == text.len() && text.trim_ascii().ends_with(b")")) {
                self.at += offset;
                return Ok(Token::Word(String::new()));
            }
        }
        Err(FragmentError::Unbalanced { line })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OURS: &str = "server_name: \"x\"\nhost: \"h\"\nport: 1\nlogtime: true\njetstream {\n  store_dir: \"/x\"\n}\n";

    #[test]
    fn other_keys_pass() {
        for fragment in [
            "",
            "# port: 1\n// host: x\n",
            "leafnodes { port: 7422 }",
            "mqtt: { port: 1883, tls { cert_file: \"x\" } }\nsystem_account: SYS",
            "ACC = { jetstream: enabled }\nmappings = { a: b }",
            "default_permissions { publish: [\"a\", 'b'] }",
            "note: (\nport: 1 }\n)\n",
        ] {
            assert_eq!(check(fragment, OURS), Ok(()), "{fragment}");
        }
    }

    #[test]
    fn clashes_are_named() {
        for (fragment, key, ours) in [
            ("port: 1", "port", "port"),
            ("PORT=1", "PORT", "port"),
            ("x: 1, \"port\": 2", "port", "port"),
            ("x { y: 1 } port 2", "port", "port"),
            ("listen: \"0.0.0.0:1\"", "listen", "host"),
            ("jetstream: enabled", "jetstream", "jetstream"),
            ("net = '::'", "net", "host"),
            ("log_file: '/x'", "log_file", "logtime"),
        ] {
            let expected = FragmentError::Clash { key: key.to_lowercase(), ours: ours.into() };
            assert_eq!(check(fragment, OURS), Err(expected), "{fragment}");
        }
    }

    #[test]
    fn includes_and_unbalanced_text_are_refused() {
        assert_eq!(check("include 'other.conf'", OURS), Err(FragmentError::Include));
        assert_eq!(check("mqtt {\n include \"x\"\n}", OURS), Err(FragmentError::Include));
        for fragment in ["a {", "}", "a: \"x", "a: [1", "b: (\nx"] {
            assert!(matches!(check(fragment, OURS), Err(FragmentError::Unbalanced { .. })), "{fragment}");
        }
    }

    proptest! {
        #[test]
        fn no_fragment_panics(text in "[a-z{}\\[\\]()\"'\\\\#/ ,;:=\n]{0,80}") {
            let _ = check(&text, OURS);
        }
    }
}
