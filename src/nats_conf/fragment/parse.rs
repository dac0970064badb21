//! The language of nats.conf, by the rules of nats-server's lexer (conf/lex.go, 2.10 to 2.15).
//!
//! What is read here means the same to every nats-server. It is less than what they take: a key
//! without a value, a number with an unknown unit, braces around everything, a lone slash and the
//! like are refused. Some of those move keys to another place there: of
//! `x { store_dir: /a, jetstream: }` nats-server makes a top-level `jetstream`.

use std::collections::HashSet;

use super::FragmentError;
use super::keys::fold;

#[derive(Debug)]
pub struct Entry {
    pub key: String,
    pub value: Value,
    pub line: usize,
}

#[derive(Debug)]
pub enum Value {
    /// May hold any bytes.
    Text(Vec<u8>),
    /// A number, a date or a truth value, as it is written.
    Literal(String),
    /// The name of an earlier key.
    Variable(String),
    List(Vec<Value>),
    Map(Vec<Entry>),
}

/// How deep maps and lists may lie in each other.
const DEEPEST: usize = 64;

const UNCLOSED: &str = "a quote, bracket or brace is not closed";
const NO_VALUE: &str = "a key has no value";
const NUMBER: &str = "something that begins like a number is none: put it in quotes";
const AFTER_VALUE: &str = "a value must be followed by a new line or a comma";

/// What a unit begins with.
const UNITS: &str = "kKmMgGtTpPeE";

pub fn parse(text: &str) -> Result<Vec<Entry>, FragmentError> {
    // nats-server takes NUL for the end of the file.
    if let Some(at) = text.find('\0') {
        return Err(malformed(text, at, "it holds a NUL character"));
    }
    if text.starts_with('\u{feff}') {
        return Err(malformed(text, 0, "it begins with a byte order mark: save it as UTF-8 without one"));
    }
    // Behind it more of nats.conf may follow on the next line.
    let text = format!("{text}\n");
    let mut parser = Parser { text: &text, at: 0, scopes: vec![], counted: (0, 1) };
    parser.map(Place::Top)
}

/// What surrounds a value.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Top,
    Map,
    List,
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    /// The keys that each open map has so far, for variables.
    scopes: Vec<HashSet<String>>,
    /// A position whose line is known, so that lines are counted once.
    counted: (usize, usize),
}

fn malformed(text: &str, at: usize, what: &'static str) -> FragmentError {
    FragmentError::Malformed { what, line: 1 + text[..at].matches('\n').count() }
}

/// unicode.IsSpace.
fn is_space(c: char) -> bool {
    c.is_whitespace()
}

fn is_blank(c: char) -> bool {
    c == ' ' || c == '\t'
}

fn is_line_end(c: char) -> bool {
    c == '\n' || c == '\r'
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn take(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    /// The line of the current position.
    fn line(&mut self) -> usize {
        let (at, line) = self.counted;
        let line = line + self.text[at..self.at].matches('\n').count();
        self.counted = (self.at, line);
        line
    }

    fn error<T>(&self, what: &'static str) -> Result<T, FragmentError> {
        Err(malformed(self.text, self.at, what))
    }

    /// What begins at `start` does not end.
    fn unclosed<T>(&self, start: usize) -> Result<T, FragmentError> {
        Err(malformed(self.text, start, UNCLOSED))
    }

    fn comment(&mut self) -> bool {
        let is_comment = self.rest().starts_with('#') || self.rest().starts_with("//");
        if is_comment {
            self.take_while(|c| !is_line_end(c));
        }
        is_comment
    }

    /// The entries up to the end of the text, or up to and with the closing brace.
    fn map(&mut self, place: Place) -> Result<Vec<Entry>, FragmentError> {
        if self.scopes.len() >= DEEPEST {
            return self.error("maps and lists lie too deep in each other");
        }
        self.scopes.push(HashSet::new());
        let start = self.at;
        let mut entries = vec![];
        loop {
            self.take_while(is_space);
            if self.comment() {
                continue;
            }
            match (self.peek(), place) {
                (None, Place::Top) => break,
                (None, _) => return self.unclosed(start),
                (Some('}'), Place::Map) => {
                    self.at += 1;
                    break;
                }
                // What no key begins with by intention.
                (Some(c), _) if ",;:={}[]()/".contains(c) => return self.error("a key must stand here"),
                _ => {}
            }
            let line = self.line();
            let key = self.key(line)?;
            let value = self.value_of_key(place)?;
            if let Some(scope) = self.scopes.last_mut() {
                scope.insert(key.clone());
            }
            entries.push(Entry { key, value, line });
            self.end_of_value(place)?;
        }
        self.scopes.pop();
        Ok(entries)
    }

    fn key(&mut self, line: usize) -> Result<String, FragmentError> {
        if let Some(quote @ ('"' | '\'')) = self.peek() {
            let start = self.at;
            self.at += 1;
            // Nothing is escaped in a key.
            let key = self.take_while(|c| c != quote);
            if self.take().is_none() {
                return self.unclosed(start);
            }
            if key.contains('"') && key.contains('\'') {
                return self.error("a key holds quotes of both kinds");
            }
            return Ok(key.to_owned());
        }
        let key = self.take_while(|c| !is_space(c) && c != ':' && c != '=');
        if fold(key) == "include" && self.peek().is_some_and(is_space) {
            return Err(FragmentError::Include { line });
        }
        if key.contains('"') && key.contains('\'') {
            return self.error("a key holds quotes of both kinds");
        }
        Ok(key.to_owned())
    }

    /// A separator may come between a key and its value, and white space of any kind before it.
    fn value_of_key(&mut self, place: Place) -> Result<Value, FragmentError> {
        self.take_while(is_space);
        let separated = matches!(self.peek(), Some(':' | '='));
        if separated {
            self.at += 1;
            // In a map the value may stand on another line.
            self.take_while(|c| if place == Place::Top { is_blank(c) } else { is_space(c) });
        }
        self.value()
    }

    fn value(&mut self) -> Result<Value, FragmentError> {
        self.take_while(is_blank);
        let start = self.at;
        let Some(c) = self.peek() else { return self.error(NO_VALUE) };
        match c {
            '{' => {
                self.at += 1;
                self.map(Place::Map).map(Value::Map)
            }
            '[' => {
                self.at += 1;
                self.list().map(Value::List)
            }
            '(' => self.block(),
            '\'' => {
                self.at += 1;
                let text = self.take_while(|c| c != '\'');
                if self.take().is_none() { self.unclosed(start) } else { Ok(Value::Text(text.into())) }
            }
            '"' => {
                self.at += 1;
                self.text(|c| c == '"', true)
            }
            '-' | '.' | '0'..='9' => self.number(),
            c if is_line_end(c) || ",;]})".contains(c) => self.error(NO_VALUE),
            _ => self.bare(),
        }
    }

    /// Text with escapes up to a character that ends it; in quotes that is taken as well.
    fn text(&mut self, ends: impl Fn(char) -> bool, quoted: bool) -> Result<Value, FragmentError> {
        let start = self.at;
        let mut bytes = vec![];
        loop {
            let part = self.take_while(|c| c != '\\' && !ends(c));
            bytes.extend_from_slice(part.as_bytes());
            match self.peek() {
                None => return self.unclosed(start),
                Some('\\') => bytes.push(self.escape()?),
                Some(c) => {
                    if quoted || c == '\'' {
                        self.at += 1;
                    }
                    return Ok(Value::Text(bytes));
                }
            }
        }
    }

    fn escape(&mut self) -> Result<u8, FragmentError> {
        const UNKNOWN: &str =
            "a backslash must be followed by x and two hexadecimal digits, t, n, r, \" or a backslash";
        self.at += 1;
        Ok(match self.take() {
            Some('x') => {
                let digits = self.rest().get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
                let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
                let Some(byte) = byte else { return self.error(UNKNOWN) };
                self.at += 2;
                byte
            }
            Some('t') => b'\t',
            Some('n') => b'\n',
            Some('r') => b'\r',
            Some('"') => b'"',
            Some('\\') => b'\\',
            _ => return self.error(UNKNOWN),
        })
    }

    /// A word without quotes: text, a truth value or a variable.
    fn bare(&mut self) -> Result<Value, FragmentError> {
        let start = self.at;
        let ends = |c: char| is_line_end(c) || is_blank(c) || ";,]}'".contains(c);
        let value = self.text(ends, false)?;
        let word = &self.text[start..self.at];
        // A single quote ends it as well, and makes it text, as an escape does.
        if word.contains(['\\', '\'']) {
            return Ok(value);
        }
        if ["true", "false", "on", "off", "yes", "no"].contains(&fold(word).as_str()) {
            return Ok(Value::Literal(word.to_owned()));
        }
        match word.strip_prefix('$') {
            None => Ok(value),
            // A bcrypt hash.
            Some(name) if name.starts_with("2a$") => Ok(value),
            Some(name) if self.scopes.iter().any(|scope| scope.contains(name)) => Ok(Value::Variable(name.to_owned())),
            Some(name) => Err(FragmentError::Variable { name: name.to_owned(), line: self.line() }),
        }
    }

    /// A number with a unit or without, a date, an address, or text that begins with a digit.
    fn number(&mut self) -> Result<Value, FragmentError> {
        let start = self.at;
        let word = self.take_while(|c| !is_line_end(c) && !is_blank(c) && !";,]}".contains(c));
        if is_number(word) || is_date(word) {
            return Ok(Value::Literal(word.to_owned()));
        }
        let digits = word.trim_start_matches(|c: char| c.is_ascii_digit());
        // nats-server takes any row of b and i for a unit, and drops a value with one that it does not know.
        let is_unit =
            digits.starts_with(|c: char| UNITS.contains(c)) && digits[1..].bytes().all(|b| b"bBiI".contains(&b));
        let is_address = word.matches('.').count() > 1
            && word.starts_with(|c: char| c.is_ascii_digit())
            && word.bytes().all(|b| b.is_ascii_digit() || b".:-".contains(&b))
            && !word.contains("..");
        if is_address {
            return Ok(Value::Text(word.into()));
        }
        // `10s` is text, `10.5s` and `10-5` are mistakes to nats-server.
        if word.starts_with(['-', '.'])
            || digits.is_empty()
            || is_unit
            || digits.starts_with(['-', '.'])
            || word.contains('\'')
        {
            self.at = start;
            return self.error(NUMBER);
        }
        self.at = start;
        self.bare()
    }

    /// The elements up to and with the closing bracket.
    fn list(&mut self) -> Result<Vec<Value>, FragmentError> {
        if self.scopes.len() >= DEEPEST {
            return self.error("maps and lists lie too deep in each other");
        }
        // It has no keys; it counts for the depth.
        self.scopes.push(HashSet::new());
        let start = self.at;
        let mut values = vec![];
        loop {
            self.take_while(is_space);
            if self.comment() {
                continue;
            }
            match self.peek() {
                None => return self.unclosed(start),
                Some(']') => {
                    self.at += 1;
                    break;
                }
                _ => {}
            }
            values.push(self.value()?);
            self.end_of_value(Place::List)?;
        }
        self.scopes.pop();
        Ok(values)
    }

    /// What must come after a value: a comma, the end of the line, or what closes the place, which is
    /// left where it is.
    fn end_of_value(&mut self, place: Place) -> Result<(), FragmentError> {
        loop {
            self.take_while(is_blank);
            if self.comment() {
                continue;
            }
            return match (self.peek(), place) {
                (Some(c), _) if is_line_end(c) || c == ',' => {
                    self.at += 1;
                    Ok(())
                }
                (Some(';'), Place::Top | Place::Map) => {
                    self.at += 1;
                    Ok(())
                }
                (Some('}'), Place::Map) | (Some(']'), Place::List) | (None, Place::Top) => Ok(()),
                (None, _) => self.error(NO_VALUE),
                _ => self.error(AFTER_VALUE),
            };
        }
    }

    /// Raw text in parentheses, up to a line that is only `)`.
    fn block(&mut self) -> Result<Value, FragmentError> {
        let rest = &self.rest()[1..];
        let Some(end) = rest.find("\n)\n") else { return self.unclosed(self.at) };
        self.at += 1 + end + 2;
        Ok(Value::Text(rest[..=end].into()))
    }
}

/// Digits that fit, with a unit or with decimals.
fn is_number(word: &str) -> bool {
    let unsigned = word.strip_prefix('-').unwrap_or(word);
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if let Some((whole, decimals)) = unsigned.split_once('.') {
        return digits(whole) && digits(decimals) && word.len() < 32;
    }
    let unit = unsigned.trim_start_matches(|c: char| c.is_ascii_digit());
    let number = &word[..word.len() - unit.len()];
    let mut unit = unit.chars();
    let known = match unit.next() {
        None => true,
        Some(c) => UNITS.contains(c) && ["", "b", "i", "ib"].contains(&unit.as_str().to_ascii_lowercase().as_str()),
    };
    known && number.parse::<i64>().is_ok()
}

/// `2026-11-26T11:30:00Z`.
fn is_date(word: &str) -> bool {
    let form = "0000-00-00T00:00:00Z";
    let fits = |(c, expected): (char, char)| if expected == '0' { c.is_ascii_digit() } else { c == expected };
    word.len() == form.len() && word.chars().zip(form.chars()).all(fits)
}
