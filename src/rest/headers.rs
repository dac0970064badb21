//! NATS headers as clients write them in JSON: a text for each name, or a list of texts.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Names with their values, each name once and each with a value at least, so that nothing that a client
/// says gets lost.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Given(Vec<(String, Vec<String>)>);

impl Given {
    /// Name and value of each line.
    pub fn lines(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|(name, values)| values.iter().map(move |value| (name.as_str(), value.as_str())))
    }
}

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reads;

        impl<'de> Visitor<'de> for Reads {
            type Value = Given;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("headers: an object with a text or a list of texts for each")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Given, A::Error> {
                let mut given: Vec<(String, Vec<String>)> = vec![];
                while let Some((name, Values(values))) = map.next_entry::<String, Values>()? {
                    if given.iter().any(|(other, _)| *other == name) {
                        let fault = format_args!("header {name:?} stands twice; write its values as a list");
                        return Err(A::Error::custom(fault));
                    }
                    if values.is_empty() {
                        let fault = format_args!("header {name:?} has an empty list: leave it out to send none");
                        return Err(A::Error::custom(fault));
                    }
                    given.push((name, values));
                }
                Ok(Given(given))
            }
        }

        deserializer.deserialize_map(Reads)
    }
}

/// What stands at a name.
struct Values(Vec<String>);

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reads;

        impl<'de> Visitor<'de> for Reads {
            type Value = Values;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts for each header")
            }

            fn visit_str<E>(self, value: &str) -> Result<Values, E> {
                Ok(Values(vec![value.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Values, A::Error> {
                let mut values = vec![];
                while let Some(value) = seq.next_element()? {
                    values.push(value);
                }
                Ok(Values(values))
            }
        }

        deserializer.deserialize_any(Reads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_a_line_in_its_order() {
        let given: Given = serde_json::from_str(r#"{"a":"1","A":"2","b":["3","4"],"\u0063":""}"#).unwrap();
        let lines: Vec<_> = given.lines().collect();
        assert_eq!(lines, [("a", "1"), ("A", "2"), ("b", "3"), ("b", "4"), ("c", "")]);
        assert_eq!(serde_json::from_str::<Given>("{}").unwrap().lines().count(), 0);
    }

    #[test]
    fn what_would_get_lost_is_refused() {
        for (text, word) in [
            (r#"{"a":"1","a":"1"}"#, "twice"),
            (r#"{"a":"1","\u0061":"2"}"#, "twice"),
            (r#"{"a":[]}"#, "empty list"),
            (r#"{"a":1}"#, "a text or a list of texts"),
            (r#"{"a":null}"#, "a text or a list of texts"),
            (r#"{"a":{}}"#, "a text or a list of texts"),
            (r#"{"a":["x",1]}"#, "string"),
            (r#"{"a":[["x"]]}"#, "string"),
            (r#"["a"]"#, "headers"),
            (r#"{"a":"\ud800"}"#, "hex escape"),
        ] {
            let error = serde_json::from_str::<Given>(text).unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
