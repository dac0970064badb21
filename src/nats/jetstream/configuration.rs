//! Configurations of streams: taken apart where somebody looks into them, and as they were written where
//! all of them are looked at again and again.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::json;

/// A form in which the configuration of a stream may be had.
pub trait Configuration: Sized {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;

    /// The stream's.
    fn name(&self) -> &str;
}

impl Configuration for Map<String, Value> {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        json::object(deserializer)
    }

    fn name(&self) -> &str {
        self.get("name").and_then(Value::as_str).unwrap_or_default()
    }
}

/// A configuration as a server wrote it, with everything that we do not know, and of what we know the terms.
#[derive(Clone, Debug)]
pub struct WrittenConfig {
    text: Arc<RawValue>,
    pub terms: Terms,
}

/// What says how long a stream keeps its messages; nothing where the configuration does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    pub name: String,
    pub is_on_disk: bool,
    /// For as long as its limits allow, and not until consumers have acknowledged them.
    pub keeps_to_limits: bool,
    pub max_msgs: i64,
    pub max_bytes: i64,
    /// Nanoseconds.
    pub max_age: i64,
    pub max_msgs_per_subject: i64,
    pub allow_msg_ttl: bool,
    pub allow_rollup_hdrs: bool,
}

impl WrittenConfig {
    /// All of it, taken apart.
    pub fn fields(&self) -> Option<Map<String, Value>> {
        json::object_of(self.text.get().as_bytes()).ok()
    }
}

impl Configuration for WrittenConfig {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(deserializer)
    }

    fn name(&self) -> &str {
        &self.terms.name
    }
}

impl PartialEq for WrittenConfig {
    fn eq(&self, other: &Self) -> bool {
        self.text.get() == other.text.get()
    }
}

impl Serialize for WrittenConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.text.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for WrittenConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let terms = serde_json::Deserializer::from_str(text.get()).deserialize_map(ReadsTerms);
        Ok(Self { terms: terms.map_err(D::Error::custom)?, text: text.into() })
    }
}

struct ReadsTerms;

impl<'de> Visitor<'de> for ReadsTerms {
    type Value = Terms;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Terms, A::Error> {
        let mut terms = Terms::default();
        // What is of another kind than we know says nothing.
        let number = |text: &str| text.parse().unwrap_or_default();
        let word = |text: &str| serde_json::from_str::<String>(text).unwrap_or_default();
        #[derive(Deserialize)]
        struct Key<'a>(#[serde(borrow)] Cow<'a, str>);
        while let Some((Key(key), value)) = map.next_entry::<Key<'de>, &'de RawValue>()? {
            let text = value.get();
            match &*key {
                "name" => terms.name = word(text),
                "storage" => terms.is_on_disk = word(text) == "file",
                "retention" => terms.keeps_to_limits = word(text) == "limits",
                "max_msgs" => terms.max_msgs = number(text),
                "max_bytes" => terms.max_bytes = number(text),
                "max_age" => terms.max_age = number(text),
                "max_msgs_per_subject" => terms.max_msgs_per_subject = number(text),
                "allow_msg_ttl" => terms.allow_msg_ttl = text == "true",
                "allow_rollup_hdrs" => terms.allow_rollup_hdrs = text == "true",
                _ => {}
            }
        }
        Ok(terms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> WrittenConfig {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_is_written_stays_as_it_is_whatever_it_says() {
        const MARK: &str = "$serde_json::private::RawValue";
        let all = format!(r#"{{"name":"A", "metadata":{{"{MARK}":"no JSON","b":""}},"of_the_future":-1.80e+113}}"#);
        for text in ["{}", r#"{"name":5,"max_age":"1h","storage":null}"#, &all] {
            let config = read(text);
            assert_eq!(serde_json::to_string(&config).unwrap(), text);
            let name = config.fields().unwrap();
            assert_eq!(config.name(), Configuration::name(&name), "{text}");
            assert_eq!(serde_json::from_value::<WrittenConfig>(json!({})).unwrap() == config, text == "{}");
        }
        assert_eq!(read(&all).fields().unwrap()["metadata"][MARK], "no JSON");
        for wrong in ["[]", "5", "null", "{"] {
            assert!(serde_json::from_str::<WrittenConfig>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn terms_are_read_as_they_were_from_all_fields() {
        let text = r#"{"name":"A\"","storage":"file","retention":"limits","max_msgs":-1,"max_bytes":9223372036854775807,
            "max\u005fage":60,"max_msgs_per_subject":1,"max_msgs_per_subject":2,"allow_msg_ttl":true}"#;
        let terms = Terms {
            name: "A\"".into(),
            is_on_disk: true,
            keeps_to_limits: true,
            max_msgs: -1,
            max_bytes: i64::MAX,
            max_age: 60,
            max_msgs_per_subject: 2,
            allow_msg_ttl: true,
            allow_rollup_hdrs: false,
        };
        assert_eq!(read(text).terms, terms);
        let odd = r#"{"storage":["file"],"retention":"workqueue","max_msgs":1.5,"max_age":18446744073709551615,"allow_msg_ttl":1}"#;
        assert_eq!(read(odd).terms, Terms::default());
    }
}
