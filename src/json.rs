//! JSON of which others choose the keys, such as the metadata of a stream.
//!
//! serde_json's `Value` takes an object that begins with the key `$serde_json::private::RawValue` for a
//! mark of its own and reads the value as JSON once more: whoever may name a key could make a whole list
//! unreadable, or change what it says. Here a key is a key.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// A value of JSON, whatever its keys are called. A key that stands twice has its last value.
pub struct Plain(pub Value);

/// For `#[serde(deserialize_with)]`: an object whose keys others choose, at any depth.
pub fn object<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Map<String, Value>, D::Error> {
    object_with(|_| true, deserializer)
}

/// The same without what stands under other keys than those that are wanted, at any depth.
pub fn object_with<'de, D: Deserializer<'de>>(
    is_wanted: fn(&str) -> bool,
    deserializer: D,
) -> Result<Map<String, Value>, D::Error> {
    match Reads(is_wanted).deserialize(deserializer)? {
        Plain(Value::Object(object)) => Ok(object),
        _ => Err(D::Error::custom("expected a JSON object")),
    }
}

/// A whole text of JSON that is an object.
pub fn object_of(text: &[u8]) -> serde_json::Result<Map<String, Value>> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let object = object(&mut deserializer)?;
    deserializer.end()?;
    Ok(object)
}

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Reads(|_| true).deserialize(deserializer)
    }
}

/// What is under keys that are not wanted is skipped.
#[derive(Clone, Copy)]
struct Reads(fn(&str) -> bool);

impl<'de> DeserializeSeed<'de> for Reads {
    type Value = Plain;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Plain, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reads {
    type Value = Plain;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Plain, E> {
        Ok(Plain(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Plain, E> {
        Ok(Plain(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Plain, E> {
        Ok(Plain(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Plain, E> {
        Ok(Plain(Number::from_f64(value).map_or(Value::Null, Value::Number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Plain, E> {
        Ok(Plain(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Plain, E> {
        Ok(Plain(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Plain, E> {
        Ok(Plain(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Plain, A::Error> {
        let mut values = vec![];
        while let Some(Plain(value)) = seq.next_element_seed(self)? {
            values.push(value);
        }
        Ok(Plain(values.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Plain, A::Error> {
        let mut values = Map::new();
        while let Some(key) = map.next_key_seed(WantedKey(self.0))? {
            match key {
                Some(key) => _ = values.insert(key, map.next_value_seed(self)?.0),
                None => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(Plain(values.into()))
    }
}

/// A key, where it is wanted.
struct WantedKey(fn(&str) -> bool);

impl<'de> DeserializeSeed<'de> for WantedKey {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<String>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for WantedKey {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Option<String>, E> {
        Ok((self.0)(key).then(|| key.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: &str = "$serde_json::private::RawValue";

    #[test]
    fn keys_that_serde_json_takes_for_its_own_are_keys() {
        for value in [r#"null"#, r#""5""#, r#""not JSON""#, r#"{"a":1}"#] {
            let text = format!(r#"{{"metadata":{{"{MARK}":{value},"b":[{{"{MARK}":{value}}}]}},"c":1}}"#);
            let read = object_of(text.as_bytes()).unwrap();
            assert_eq!(serde_json::to_string(&read).unwrap(), text);
        }
    }

    #[test]
    fn what_is_not_wanted_is_skipped_at_any_depth() {
        let text = r#"{"a":{"b":1,"a":2},"b":{"a":3},"c":[{"b":4,"\u0061":"x"},5],"a\"":6}"#;
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let read = object_with(|key| ["a", "c"].contains(&key), &mut deserializer).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), r#"{"a":{"a":2},"c":[{"a":"x"},5]}"#);
    }

    #[test]
    fn anything_else_is_read_as_serde_json_reads_it() {
        for text in [
            r#"{"a":[1,-2,0.5,1e300,18446744073709551615,true,false,null,"é\n"],"b":{"c":{}},"d":[]}"#,
            "{}",
            r#"{"a":1,"a":2}"#,
        ] {
            assert_eq!(
                Value::Object(object_of(text.as_bytes()).unwrap()),
                serde_json::from_str::<Value>(text).unwrap()
            );
        }
        for wrong in ["", "[]", "1", r#"{"a":1}x"#, r#"{"a":1e999}"#, &"{\"a\":".repeat(1_000)] {
            assert!(object_of(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
