//! What a span says.

use std::borrow::Cow;
use std::time::SystemTime;

use super::context::{SpanContext, SpanId};

/// Something that took time, once it is over.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub context: SpanContext,
    pub parent: Option<SpanId>,
    pub name: Cow<'static, str>,
    pub kind: Kind,
    pub began: SystemTime,
    pub ended: SystemTime,
    pub attributes: Vec<(&'static str, Value)>,
    pub status: Status,
}

/// What it was for others, with the numbers of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Internal = 1,
    /// It answered a request.
    Server = 2,
    /// It sent a message.
    Producer = 4,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(Cow<'static, str>),
    Int(i64),
    Bool(bool),
}

/// How it went. What goes well says nothing: OpenTelemetry leaves "ok" to people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Status {
    #[default]
    Unset,
    /// It failed, for that reason.
    Error(String),
}

/// Characters of a text at most: clients choose some of them, and many spans wait.
const LONGEST: usize = 1000;

/// A text that is too long has an end that says so.
pub(super) fn cut(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(LONGEST) {
        text.truncate(end);
        text.push('…');
        text.shrink_to_fit();
    }
    text
}

impl Span {
    pub fn new(
        context: SpanContext,
        parent: Option<SpanId>,
        name: impl Into<Cow<'static, str>>,
        kind: Kind,
        began: SystemTime,
    ) -> Self {
        let (attributes, status) = (vec![], Status::Unset);
        Self { context, parent, name: name.into(), kind, began, ended: began, attributes, status }
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(cut(text).into())
    }
}

impl From<Cow<'static, str>> for Value {
    fn from(text: Cow<'static, str>) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        // Cut before it is copied.
        let end = text.char_indices().nth(LONGEST + 1).map_or(text.len(), |(end, _)| end);
        Self::from(text[..end].to_owned())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<bool> for Value {
    fn from(is_so: bool) -> Self {
        Self::Bool(is_so)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        let text = |length| "é".repeat(length);
        for (given, kept) in
            [(0, text(0)), (LONGEST, text(LONGEST)), (LONGEST + 1, text(LONGEST) + "…"), (9999, text(LONGEST) + "…")]
        {
            assert_eq!(Value::from(text(given).as_str()), Value::Text(kept.clone().into()));
            assert_eq!(Value::from(text(given)), Value::Text(kept.clone().into()));
            assert_eq!(cut(text(given)), kept);
        }
    }
}
