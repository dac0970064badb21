//! Where a span stands, in the words of W3C Trace Context. Pure.

use std::fmt;

/// Names a trace. Never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(u128);

/// Names a span within its trace. Never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(u64);

/// What others need to know of a span to go on from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanContext {
    pub trace: TraceId,
    pub span: SpanId,
    /// Whoever began the trace wants it recorded.
    pub sampled: bool,
}

impl TraceId {
    /// Zero would be none.
    pub const fn new(id: u128) -> Self {
        Self(if id == 0 { 1 } else { id })
    }

    pub fn random() -> Self {
        Self::new(fastrand::u128(..))
    }

    pub const fn bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The half that is random by all that made ids so far.
    pub const fn low(self) -> u64 {
        self.0 as u64
    }
}

impl SpanId {
    /// Zero would be none.
    pub const fn new(id: u64) -> Self {
        Self(if id == 0 { 1 } else { id })
    }

    pub fn random() -> Self {
        Self::new(fastrand::u64(..))
    }

    pub const fn bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// As it stands in the header `traceparent`, version 00.
impl fmt::Display for SpanContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

impl SpanContext {
    /// Reads the header `traceparent`. Later versions may have more at the end; nothing for what is none.
    pub fn parse(text: &str) -> Option<Self> {
        const LENGTH: usize = 55;
        let (known, more) = text.split_at_checked(LENGTH)?;
        let mut parts = known.split('-');
        let mut part = |length: usize| {
            let part = parts.next().filter(|part| part.len() == length)?;
            // Capitals are not allowed, nor is a sign, which the parser of numbers would take.
            let is_hex = part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            is_hex.then(|| u128::from_str_radix(part, 16).ok()).flatten()
        };
        let (version, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        let ends = more.is_empty() || (version > 0 && more.starts_with('-'));
        if version == 0xff || trace == 0 || span == 0 || !ends {
            return None;
        }
        Some(Self { trace: TraceId(trace), span: SpanId(span as u64), sampled: flags & 1 == 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_context_is_read_and_written_as_it_was() {
        let context = SpanContext::parse(GOOD).unwrap();
        assert_eq!((context.to_string().as_str(), context.sampled), (GOOD, true));
        assert_eq!(context.trace.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(context.span.bytes(), [0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]);
        assert!(!SpanContext::parse(&GOOD.replace("-01", "-02")).unwrap().sampled);
        let later = format!("cc{}-what-will-be", &GOOD[2..]);
        assert_eq!(SpanContext::parse(&later), Some(context));
    }

    #[test]
    fn what_is_no_context_is_none() {
        for bad in [
            "",
            "00",
            &GOOD.to_uppercase(),
            &GOOD.replace("00-", "ff-"),
            &GOOD.replace("00-", "0-0"),
            &GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &GOOD.replace("b7ad6b7169203331", &"0".repeat(16)),
            &GOOD.replace("b7ad", "+7ad"),
            &format!("{GOOD}-x"),
            &format!("cc{}x", &GOOD[2..]),
            &GOOD[..54],
            "é-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(SpanContext::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_context_survives(trace: u128, span: u64, sampled: bool) {
            let context = SpanContext { trace: TraceId::new(trace), span: SpanId::new(span), sampled };
            prop_assert_eq!(SpanContext::parse(&context.to_string()), Some(context));
        }

        #[test]
        fn no_text_is_too_much(text in ".{0,80}") {
            let _ = SpanContext::parse(&text);
        }
    }
}
