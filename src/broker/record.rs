//! A message as clients read it: one JSON object on one line.

use async_nats::HeaderMap;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;

use super::point::Nanos;

/// A message as a stream holds it.
#[derive(Clone, Debug)]
pub struct Record {
    pub subject: async_nats::Subject,
    pub payload: Bytes,
    pub headers: Option<HeaderMap>,
    pub sequence: u64,
    pub time: Nanos,
}

impl Record {
    /// How many bytes it takes at least.
    pub fn size(&self) -> usize {
        self.payload.len() + self.subject.len()
    }

    /// Appends `{"stream","sequence","time","subject","headers"?,"encoding","message"}`: what
    /// `POST …/publish` takes as subject, headers, encoding and message gives such a message again.
    pub fn write(&self, out: &mut Vec<u8>, stream: &str) {
        use std::io::Write;
        out.extend_from_slice(b"{\"stream\":");
        write_text(out, stream);
        // A vector takes everything.
        let _ = write!(out, ",\"sequence\":{},\"time\":\"", self.sequence);
        self.time.write(out);
        out.extend_from_slice(b"\",\"subject\":");
        write_text(out, &self.subject);
        if let Some(headers) = self.headers.as_ref().filter(|headers| !headers.is_empty()) {
            out.extend_from_slice(b",\"headers\":");
            write_headers(out, headers);
        }
        match as_json(&self.payload) {
            Some(json) => {
                out.extend_from_slice(b",\"encoding\":\"json\",\"message\":");
                let at = out.len();
                out.extend_from_slice(json.as_bytes());
                // Between the values of JSON they mean nothing, and inside of texts there are none.
                for byte in &mut out[at..] {
                    if matches!(byte, b'\n' | b'\r') {
                        *byte = b' ';
                    }
                }
                out.push(b'}');
            }
            None => {
                out.extend_from_slice(b",\"encoding\":\"base64\",\"message\":\"");
                let at = out.len();
                out.resize(at + self.payload.len().div_ceil(3) * 4, 0);
                // The space is what it takes.
                let _ = BASE64_STANDARD.encode_slice(&self.payload, &mut out[at..]);
                out.extend_from_slice(b"\"}");
            }
        }
    }
}

/// The payload, if it is one JSON value.
fn as_json(payload: &[u8]) -> Option<&str> {
    // Checked first: what is skipped below is not checked for it.
    let text = std::str::from_utf8(payload).ok()?;
    serde_json::from_str::<serde::de::IgnoredAny>(text).ok().map(|_| text)
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    let is_plain = |byte: &u8| matches!(byte, 0x20..0x7f) && !matches!(byte, b'"' | b'\\');
    if text.as_bytes().iter().all(is_plain) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
        return;
    }
    // A text is always JSON, and a vector takes everything.
    let _ = serde_json::to_writer(out, text);
}

/// A text for each header, or a list of texts, in the order of their names.
fn write_headers(out: &mut Vec<u8>, headers: &HeaderMap) {
    let mut all: Vec<_> = headers.iter().map(|(name, values)| (name.to_string(), values)).collect();
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    let mut separator = b'{';
    for (name, values) in all {
        out.push(separator);
        separator = b',';
        write_text(out, &name);
        out.push(b':');
        match values.as_slice() {
            [value] => write_text(out, value.as_str()),
            values => {
                let mut separator = b'[';
                for value in values {
                    out.push(separator);
                    separator = b',';
                    write_text(out, value.as_str());
                }
                out.extend_from_slice(if separator == b'[' { b"[]" } else { b"]" });
            }
        }
    }
    out.extend_from_slice(if separator == b'{' { b"{}" } else { b"}" });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn written(payload: &[u8], headers: Option<HeaderMap>) -> (Vec<u8>, Value) {
        let payload = Bytes::copy_from_slice(payload);
        let record = Record { subject: "a.\"b".into(), payload, headers, sequence: 7, time: Nanos(1) };
        let mut out = vec![];
        record.write(&mut out, "S");
        let value = serde_json::from_slice(&out).unwrap();
        (out, value)
    }

    #[test]
    fn json_stays_json_and_anything_else_is_base64() {
        let (_, value) = written(b"{\"a\":\n1.50,\r\n\"b\":\"x\\n\"}", None);
        assert_eq!(value["message"], json!({ "a": 1.5, "b": "x\n" }));
        assert_eq!((&value["encoding"], &value["subject"]), (&json!("json"), &json!("a.\"b")));
        assert_eq!((&value["sequence"], &value["time"]), (&json!(7), &json!("1970-01-01T00:00:00.000000001Z")));
        for other in [&b""[..], b"Hello World", b"\xff", b"\"\xff\"", b"{} {}", b"[1", b"NaN"] {
            let (_, value) = written(other, None);
            assert_eq!(value["encoding"], "base64", "{other:?}");
            assert_eq!(BASE64_STANDARD.decode(value["message"].as_str().unwrap()).unwrap(), other);
        }
        // Deeper than our own reader goes.
        assert_eq!(written("[".repeat(500).as_bytes(), None).1["encoding"], "base64");
    }

    #[test]
    fn headers_are_texts_or_lists_of_texts() {
        let mut headers = HeaderMap::new();
        headers.insert("B", "1");
        headers.append("A", "x");
        headers.append("A", "y\"");
        assert_eq!(written(b"1", Some(headers)).1["headers"], json!({ "A": ["x", "y\""], "B": "1" }));
        assert!(written(b"1", Some(HeaderMap::new())).1.get("headers").is_none());
    }

    proptest! {
        #[test]
        fn every_payload_is_one_line_that_gives_it_back(payload in proptest::collection::vec(any::<u8>(), 0..64)) {
            let (line, value) = written(&payload, None);
            prop_assert!(!line.contains(&b'\n') && !line.contains(&b'\r'));
            if value["encoding"] == "base64" {
                prop_assert_eq!(BASE64_STANDARD.decode(value["message"].as_str().unwrap()).unwrap(), payload);
            } else {
                prop_assert_eq!(&value["message"], &serde_json::from_slice::<Value>(&payload).unwrap());
            }
        }
    }
}
