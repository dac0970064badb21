//! A look at an operator's nats.conf fragment: which keys it sets at its top level.

/// Keys that a fragment may never set, lower-cased, with the variable or reason to name instead.
/// They would go round what the settings promise: the store's guard, the ports that are watched,
/// who gets in (our own connection included), and where log lines go.
const RESERVED: &[(&[&str], &str)] = &[
    (&["server_name"], "NATS_SERVER_NAME"),
    (&["host", "net", "listen"], "NATS_HOST and NATS_PORT"),
    (&["port"], "NATS_PORT"),
    (&["http", "http_port", "monitor_port", "https", "https_port"], "NATS_HTTP_HOST and NATS_HTTP_PORT"),
    (&["jetstream"], "the JETSTREAM_ variables"),
    (&["cluster"], "the NATS_CLUSTER_ variables"),
    (&["gateway"], "nothing: a gateway makes the store a clustered one"),
    (&["tls"], "the NATS_TLS_ variables"),
    (&["authorization", "authentication"], "the NATS_AUTH_ variables"),
    (
        &["accounts", "operator", "operators", "roots", "resolver", "trusted", "trusted_keys", "no_auth_user"],
        "the NATS_AUTH_ variables: streams are kept in the global account",
    ),
    (&["log_file", "logfile", "syslog", "remote_syslog"], "NATS_LOG_FILE"),
];

/// Keys that nats-server takes for the same thing, lower-cased; the first is the one we write
/// (server/opts.go, `processConfigFileLine`).
const SYNONYMS: &[&[&str]] = &[
    &["logtime", "timestamp"],
    &["logtime_utc", "timestamp_utc"],
    &["max_connections", "max_conn"],
    &["max_subscriptions", "max_subs"],
    &["ping_max", "ping_max_out"],
    &["lame_duck_grace_period", "lame_duck_grace"],
];

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FragmentError {
    /// The fragment sets a key that is written already; `ours` is the key as we write it.
    #[error("the key {key:?} is written as {ours} already")]
    Clash { key: String, ours: String },
    /// A key that only the settings may set; `instead` says which.
    #[error("the key {key:?} is set by {instead}")]
    Reserved { key: String, instead: &'static str },
    #[error("include is not allowed")]
    Include,
    /// A brace, bracket, quote or block that does not match or does not belong there.
    #[error("something does not match near line {line}")]
    Unbalanced { line: usize },
}

/// Checks `fragment` against the top-level keys of `rendered`, our own part of the file. In
/// nats.conf the last of two equal keys wins without a word, so a clash must be found here.
pub fn check(fragment: &str, rendered: &str) -> Result<(), FragmentError> {
    let ours = top_level_keys(rendered)?;
    for key in top_level_keys(fragment)? {
        if let Some((_, instead)) = RESERVED.iter().find(|(names, _)| names.contains(&key.as_str())) {
            return Err(FragmentError::Reserved { key, instead });
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

/// What the next token means, by the rules of nats-server's lexer (conf/lex.go).
#[derive(Clone, Copy, PartialEq)]
enum Expects {
    Key,
    /// After a key: an optional `:` or `=`, then the value.
    Separator,
    Value,
}

/// A map or a list that is open.
#[derive(Clone, Copy, PartialEq)]
enum Open {
    Map,
    List,
}

fn top_level_keys(text: &str) -> Result<Vec<String>, FragmentError> {
    let mut scanner = Scanner { bytes: text.as_bytes(), at: 0 };
    let mut keys = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    let mut expects = Expects::Key;
    while let Some(byte) = scanner.peek() {
        let token = scanner.at;
        // In a list every position is that of a value.
        let position = if open.last() == Some(&Open::List) { Expects::Value } else { expects };
        match byte {
            b'#' => scanner.skip_line(),
            b'/' if scanner.bytes.get(scanner.at + 1) == Some(&b'/') => scanner.skip_line(),
            b'\n' | b',' | b';' => {
                scanner.at += 1;
                // A value may follow its key on a later line.
                if expects != Expects::Separator || byte != b'\n' {
                    expects = Expects::Key;
                }
            }
            _ if byte.is_ascii_whitespace() => scanner.at += 1,
            b':' | b'=' if position == Expects::Separator => {
                scanner.at += 1;
                expects = Expects::Value;
            }
            b'{' | b'[' if position != Expects::Key => {
                scanner.at += 1;
                open.push(if byte == b'{' { Open::Map } else { Open::List });
                expects = Expects::Key;
            }
            b'}' | b']' => {
                scanner.at += 1;
                let closes = if byte == b'}' { Open::Map } else { Open::List };
                if open.pop() != Some(closes) {
                    return Err(scanner.unbalanced(token));
                }
                expects = Expects::Key;
            }
            b'(' if position != Expects::Key => {
                scanner.block()?;
                expects = Expects::Key;
            }
            // nats-server passes over a brace where a key belongs, and would take what it holds.
            b'{' | b'[' | b'(' | b':' | b'=' if position == Expects::Key => {
                return Err(scanner.unbalanced(token));
            }
            _ => {
                let quoted = byte == b'"' || byte == b'\'';
                let word = if quoted { scanner.quoted(byte)? } else { scanner.word(position) };
                if position != Expects::Key {
                    expects = Expects::Key;
                    continue;
                }
                let key = word.to_ascii_lowercase();
                if key == "include" && !quoted {
                    return Err(FragmentError::Include);
                }
                if open.is_empty() {
                    keys.push(key);
                }
                expects = Expects::Separator;
            }
        }
    }
    if open.is_empty() { Ok(keys) } else { Err(scanner.unbalanced(scanner.at)) }
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// The error at a position. Lines are counted here only: for each token it would take minutes
    /// with a large fragment.
    fn unbalanced(&self, at: usize) -> FragmentError {
        let before = &self.bytes[..at.min(self.bytes.len())];
        FragmentError::Unbalanced { line: 1 + before.iter().filter(|b| **b == b'\n').count() }
    }

    fn skip_line(&mut self) {
        while self.peek().is_some_and(|b| b != b'\n') {
            self.at += 1;
        }
    }

    /// A bare word. Keys end where their value may begin; values may hold `:`, `/`, `#` and `=`.
    fn word(&mut self, position: Expects) -> String {
        let start = self.at;
        let key_ends: &[u8] = if position == Expects::Key { b":={[" } else { b"" };
        let ends = |b: u8| b.is_ascii_whitespace() || b",;]}".contains(&b) || key_ends.contains(&b);
        self.at += 1;
        while self.peek().is_some_and(|b| !ends(b)) {
            self.at += 1;
        }
        String::from_utf8_lossy(&self.bytes[start..self.at]).into_owned()
    }

    fn quoted(&mut self, quote: u8) -> Result<String, FragmentError> {
        let begin = self.at;
        self.at += 1;
        let start = self.at;
        while let Some(byte) = self.peek() {
            self.at += 1;
            if byte == b'\\' && quote == b'"' {
                self.at += 1;
            } else if byte == quote {
                let text = &self.bytes[start..self.at - 1];
                return Ok(String::from_utf8_lossy(text).into_owned());
            }
        }
        Err(self.unbalanced(begin))
    }

    /// A block in parentheses holds raw text up to a line that is only `)`.
    fn block(&mut self) -> Result<(), FragmentError> {
        let begin = self.at;
        self.at += 1;
        let rest = &self.bytes[self.at..];
        let mut offset = 0;
        for text in rest.split_inclusive(|b| *b == b'\n') {
            offset += text.len();
            if text.trim_ascii() == b")" || (offset == text.len() && text.trim_ascii().ends_with(b")")) {
                self.at += offset;
                return Ok(());
            }
        }
        Err(self.unbalanced(begin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OURS: &str = "server_name: \"x\"\nmax_connections: 1\nlogtime: true\njetstream {\n  store_dir: \"/x\"\n}\n";

    #[test]
    fn other_keys_pass() {
        for fragment in [
            "",
            "# port: 1\n// host: x\n",
            "leafnodes { port: 7422 }",
            "leafnodes { remotes: [ { url: nats-leaf://hub:7422 }, {url: \"x\"} ] }",
            "mappings { foo: bar#baz }\nmax_traced_msg_len: 5",
            "mqtt: { port: 1883, tls { cert_file: \"x\" } }\nsystem_account: SYS",
            "ACC = { jetstream: enabled }\nmappings = { a: \"include\" }",
            "default_permissions { publish: [\"a\", 'b'] }",
            "note: (\nport: 1 }\n)\n",
            "websocket {\n  port: 1\n  no_tls: true\n}\n",
        ] {
            assert_eq!(check(fragment, OURS), Ok(()), "{fragment}");
        }
    }

    #[test]
    fn reserved_keys_are_refused_however_they_are_written() {
        for (fragment, key) in [
            ("port: 1", "port"),
            ("PORT=1", "port"),
            ("x: 1, \"port\": 2", "port"),
            ("x { y: 1 } port 2", "port"),
            ("port\n1", "port"),
            ("listen: \"0.0.0.0:1\"", "listen"),
            ("jetstream: enabled", "jetstream"),
            ("cluster{name:x}", "cluster"),
            ("a: b:c#d\ncluster {\n}", "cluster"),
            ("net = '::'", "net"),
            ("log_file: '/x'", "log_file"),
            ("accounts { A: {} }", "accounts"),
        ] {
            match check(fragment, OURS) {
                Err(FragmentError::Reserved { key: found, .. }) => assert_eq!(found, key, "{fragment}"),
                other => panic!("{fragment}: {other:?}"),
            }
        }
    }

    #[test]
    fn clashes_are_named() {
        for (fragment, key, ours) in
            [("max_conn: 5", "max_conn", "max_connections"), ("timestamp = off", "timestamp", "logtime")]
        {
            let expected = FragmentError::Clash { key: key.into(), ours: ours.into() };
            assert_eq!(check(fragment, OURS), Err(expected), "{fragment}");
        }
    }

    #[test]
    fn includes_and_unbalanced_text_are_refused() {
        assert_eq!(check("include 'other.conf'", OURS), Err(FragmentError::Include));
        assert_eq!(check("mqtt {\n include \"x\"\n}", OURS), Err(FragmentError::Include));
        for fragment in ["a {", "}", "a: \"x", "a: [1", "b: (\nx", "{ \"port\": 1 }", "[ port: 1 ]", "a { b: [ } ]"] {
            assert!(matches!(check(fragment, OURS), Err(FragmentError::Unbalanced { .. })), "{fragment}");
        }
    }

    #[test]
    fn lines_are_told_where_something_begins_that_does_not_end() {
        for (fragment, line) in [("\n\na: \"x\n", 3), ("a\n}", 2), ("a: (\n\n", 1), ("a {\n\n", 3)] {
            assert_eq!(check(fragment, OURS), Err(FragmentError::Unbalanced { line }), "{fragment}");
        }
    }

    #[test]
    fn the_largest_fragment_is_read_at_once() {
        let fragment = "a 1\n".repeat(1 << 18);
        let started = std::time::Instant::now();
        assert_eq!(check(&fragment, OURS), Ok(()));
        assert!(started.elapsed() < std::time::Duration::from_secs(10), "{:?}", started.elapsed());
    }

    proptest! {
        #[test]
        fn no_fragment_panics(text in "[a-z{}\\[\\]()\"'\\\\#/ ,;:=\n]{0,80}") {
            let _ = check(&text, OURS);
        }
    }
}
