//! Messages of OTLP, in the two encodings that it has over HTTP: protobuf, and JSON with the same names.
//! Pure.
//!
//! Written by hand, because the messages that we send are few and have the same shape in both encodings;
//! the tests read them with the types that OpenTelemetry publishes.

use std::borrow::Cow;
use std::fmt::Write;

/// A message: its fields in their order. A field that is left out has its default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message(Vec<(Tag, Field)>);

/// A field's number in protobuf, and its name in JSON.
pub type Tag = (u32, &'static str);

#[derive(Clone, Debug, PartialEq)]
pub enum Field {
    Text(Cow<'static, str>),
    /// An id: bytes, and hexadecimal digits in JSON.
    Id(Vec<u8>),
    /// `uint32`, `bool` or an enum.
    Small(u32),
    Bool(bool),
    Int(i64),
    Fixed(u64),
    Double(f64),
    Message(Message),
    Messages(Vec<Message>),
    FixedList(Vec<u64>),
    DoubleList(Vec<f64>),
}

impl Message {
    pub fn with(mut self, tag: Tag, field: Field) -> Self {
        self.0.push((tag, field));
        self
    }

    pub fn text(self, tag: Tag, text: impl Into<Cow<'static, str>>) -> Self {
        self.with(tag, Field::Text(text.into()))
    }

    pub fn message(self, tag: Tag, message: Self) -> Self {
        self.with(tag, Field::Message(message))
    }

    pub fn messages(self, tag: Tag, messages: Vec<Self>) -> Self {
        self.with(tag, Field::Messages(messages))
    }

    pub fn protobuf(&self) -> Vec<u8> {
        let mut out = vec![];
        self.write_protobuf(&mut out);
        out
    }

    pub fn json(&self) -> Vec<u8> {
        let mut out = String::new();
        self.write_json(&mut out);
        out.into_bytes()
    }

    fn write_protobuf(&self, out: &mut Vec<u8>) {
        for ((number, _), field) in &self.0 {
            let number = *number;
            match field {
                Field::Text(text) => bytes(number, text.as_bytes(), out),
                Field::Id(id) => bytes(number, id, out),
                Field::Small(value) => varint_field(number, u64::from(*value), out),
                Field::Bool(value) => varint_field(number, u64::from(*value), out),
                // Two's complement, as `int64` has it.
                Field::Int(value) => varint_field(number, *value as u64, out),
                Field::Fixed(value) => fixed(number, value.to_le_bytes(), out),
                Field::Double(value) => fixed(number, value.to_le_bytes(), out),
                Field::Message(message) => bytes(number, &message.protobuf(), out),
                Field::Messages(messages) => {
                    messages.iter().for_each(|message| bytes(number, &message.protobuf(), out));
                }
                Field::FixedList(list) => bytes(number, &packed(list.iter().map(|value| value.to_le_bytes())), out),
                Field::DoubleList(list) => bytes(number, &packed(list.iter().map(|value| value.to_le_bytes())), out),
            }
        }
    }

    fn write_json(&self, out: &mut String) {
        let fields = self.0.iter().map(|((_, name), field)| (name, field));
        out.push('{');
        for (at, (name, field)) in fields.enumerate() {
            if at > 0 {
                out.push(',');
            }
            put(out, format_args!("\"{name}\":"));
            field.write_json(out);
        }
        out.push('}');
    }
}

impl Field {
    /// Numbers of 64 bits are texts: those who read JSON often know only doubles.
    fn write_json(&self, out: &mut String) {
        match self {
            Self::Text(text) => put(out, serde_json::Value::from(&**text)),
            Self::Id(id) => {
                out.push('"');
                id.iter().for_each(|byte| put(out, format_args!("{byte:02x}")));
                out.push('"');
            }
            Self::Small(value) => put(out, value),
            Self::Bool(value) => put(out, value),
            Self::Int(value) => put(out, format_args!("\"{value}\"")),
            Self::Fixed(value) => put(out, format_args!("\"{value}\"")),
            Self::Double(value) => put_double(out, *value),
            Self::Message(message) => message.write_json(out),
            Self::Messages(messages) => list(messages, out, |message, out| message.write_json(out)),
            Self::FixedList(values) => list(values, out, |value, out| put(out, format_args!("\"{value}\""))),
            Self::DoubleList(values) => list(values, out, |value, out| put_double(out, *value)),
        }
    }
}

fn put(out: &mut String, value: impl std::fmt::Display) {
    // A String takes everything.
    let _ = write!(out, "{value}");
}

/// What JSON has no number for is a text.
fn put_double(out: &mut String, value: f64) {
    match value {
        value if value.is_nan() => out.push_str("\"NaN\""),
        f64::INFINITY => out.push_str("\"Infinity\""),
        f64::NEG_INFINITY => out.push_str("\"-Infinity\""),
        value => put(out, value),
    }
}

fn list<T>(items: &[T], out: &mut String, mut write: impl FnMut(&T, &mut String)) {
    out.push('[');
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        write(item, out);
    }
    out.push(']');
}

/// How a field is written, as the lowest bits before it say.
const VARINT: u32 = 0;
const FIXED: u32 = 1;
const BYTES: u32 = 2;

fn key(number: u32, kind: u32, out: &mut Vec<u8>) {
    varint(u64::from(number << 3 | kind), out);
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint_field(number: u32, value: u64, out: &mut Vec<u8>) {
    key(number, VARINT, out);
    varint(value, out);
}

fn fixed(number: u32, value: [u8; 8], out: &mut Vec<u8>) {
    key(number, FIXED, out);
    out.extend(value);
}

fn bytes(number: u32, value: &[u8], out: &mut Vec<u8>) {
    key(number, BYTES, out);
    varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

fn packed(values: impl Iterator<Item = [u8; 8]>) -> Vec<u8> {
    values.flatten().collect()
}

/// How many parts of a request its answer, which is a success, says that the collector did not take. Why not
/// it says as well, in words that may repeat what we sent, credentials with it; nobody reads them here.
pub fn rejected(answer: &[u8], is_json: bool) -> u64 {
    if is_json {
        let Ok(answer) = crate::json::object_of(answer) else { return 0 };
        let Some(partial) = answer.get("partialSuccess") else { return 0 };
        let counts = ["rejectedSpans", "rejectedDataPoints"].iter().filter_map(|name| partial.get(name));
        let number = |value: &serde_json::Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
        return counts.filter_map(number).sum();
    }
    let partial = fields(answer).find_map(|(number, value)| match value {
        Read::Bytes(partial) if number == 1 => Some(partial),
        _ => None,
    });
    let counts = fields(partial.unwrap_or_default()).filter_map(|(number, value)| match value {
        Read::Varint(count) if number == 1 => Some(count),
        _ => None,
    });
    counts.last().unwrap_or_default()
}

enum Read<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Other,
}

/// The fields of a message as far as it can be read.
fn fields(mut text: &[u8]) -> impl Iterator<Item = (u64, Read<'_>)> {
    std::iter::from_fn(move || {
        let key = read_varint(&mut text)?;
        let value = match (key & 7) as u32 {
            VARINT => Read::Varint(read_varint(&mut text)?),
            FIXED => {
                text = text.get(8..)?;
                Read::Other
            }
            BYTES => {
                let length = usize::try_from(read_varint(&mut text)?).ok()?;
                let (value, rest) = text.split_at_checked(length)?;
                text = rest;
                Read::Bytes(value)
            }
            5 => {
                text = text.get(4..)?;
                Read::Other
            }
            _ => return None,
        };
        Some((key >> 3, value))
    })
}

fn read_varint(text: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = text.split_first()?;
        *text = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn answers_are_read_as_far_as_they_can_be() {
        let of = |partial: Message| Message::default().message((1, "partialSuccess"), partial);
        let partial = Message::default().with((1, "rejectedSpans"), Field::Int(300)).text((2, "errorMessage"), "full");
        let answer = of(partial);
        for (answer, is_json) in [(answer.protobuf(), false), (answer.json(), true)] {
            assert_eq!(rejected(&answer, is_json), 300);
            assert!((0..answer.len()).all(|end| rejected(&answer[..end], is_json) == 0), "an answer that was cut");
            assert_eq!((rejected(b"", is_json), rejected(b"{}", is_json)), (0, 0));
        }
        assert_eq!(rejected(&of(Message::default()).protobuf(), false), 0);
        assert_eq!(rejected(br#"{"partialSuccess":{"rejectedDataPoints":7}}"#, true), 7);
    }

    proptest! {
        #[test]
        fn no_answer_is_too_much(answer in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = (rejected(&answer, false), rejected(&answer, true));
        }

        #[test]
        fn texts_are_json_whatever_they_hold(text in ".{0,40}") {
            let json = Message::default().text((1, "a"), text.clone()).json();
            let read: serde_json::Value = serde_json::from_slice(&json).unwrap();
            prop_assert_eq!(read["a"].as_str(), Some(&*text));
        }
    }
}
