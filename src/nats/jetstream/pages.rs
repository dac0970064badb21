//! Lists a piece at a time, and requests about one consumer or the messages of a stream.

use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::{ApiError, ConsumerInfo, JetStream, read_answer};

/// A piece of a list of names, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    pub names: Vec<String>,
    /// On all pieces.
    pub total: usize,
}

/// Which messages go; all where nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Purge {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Only those before that sequence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// All but so many, the last ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<u64>,
}

/// Subjects of one stream and how many messages each has, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubjectCounts {
    pub subjects: Vec<(String, u64)>,
    /// How many there were from the offset on that was asked for, up to what a server gives at a time.
    pub seen: usize,
    /// How many of those came before the ones that were asked for.
    pub skipped: usize,
    /// The first of all.
    pub first: Option<String>,
    pub total: usize,
}

impl JetStream {
    /// Names of streams from that number on, of those with a subject that `subject` matches.
    pub async fn stream_names(&self, offset: usize, subject: Option<&str>) -> Result<Names, ApiError> {
        let request = serde_json::json!({ "offset": offset, "subject": subject.unwrap_or_default() });
        self.names("$JS.API.STREAM.NAMES".into(), request).await
    }

    /// Names of a stream's consumers from that number on.
    pub async fn consumer_names(&self, stream: &str, offset: usize) -> Result<Names, ApiError> {
        self.names(format!("$JS.API.CONSUMER.NAMES.{stream}"), serde_json::json!({ "offset": offset })).await
    }

    async fn names(&self, subject: String, request: Value) -> Result<Names, ApiError> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default)]
            total: usize,
            #[serde(alias = "streams", alias = "consumers")]
            names: Option<Vec<String>>,
        }
        let answer: Answer = self.ask(subject, &request).await?;
        Ok(Names { names: answer.names.unwrap_or_default(), total: answer.total })
    }

    /// [`None`] when the stream has no such consumer.
    pub async fn consumer_info(&self, stream: &str, name: &str) -> Result<Option<ConsumerInfo>, ApiError> {
        match self.ask(format!("$JS.API.CONSUMER.INFO.{stream}.{name}"), &Value::Null).await {
            Err(error) if error.is(ApiError::NO_CONSUMER) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Removes messages, and says how many.
    pub async fn purge_stream(&self, name: &str, purge: &Purge) -> Result<u64, ApiError> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default)]
            purged: u64,
        }
        let answer: Answer = self.ask(format!("$JS.API.STREAM.PURGE.{name}"), purge).await?;
        Ok(answer.purged)
    }

    /// Subjects that `filter` matches, from that number on: the first `most` of those behind `after`.
    pub async fn subject_counts(
        &self,
        stream: &str,
        filter: &str,
        offset: usize,
        after: Option<&str>,
        most: usize,
    ) -> Result<SubjectCounts, ApiError> {
        let request = serde_json::json!({ "subjects_filter": filter, "offset": offset });
        let subject = format!("$JS.API.STREAM.INFO.{stream}");
        let payload = self.ask_raw(&subject, &request).await?;
        #[derive(Deserialize)]
        struct Answer<'a> {
            #[serde(default)]
            total: usize,
            #[serde(borrow)]
            state: State<'a>,
        }
        #[derive(Deserialize)]
        struct State<'a> {
            #[serde(borrow)]
            subjects: Option<&'a serde_json::value::RawValue>,
        }
        let answer: Answer<'_> = read_answer(subject.clone(), &payload)?;
        let mut counts = SubjectCounts { total: answer.total, ..SubjectCounts::default() };
        if let Some(subjects) = answer.state.subjects {
            let mut deserializer = serde_json::Deserializer::from_str(subjects.get());
            let read = Collect { counts: &mut counts, after, most }.deserialize(&mut deserializer);
            read.map_err(|error| ApiError::Unreadable { subject, reason: error.to_string() })?;
        }
        Ok(counts)
    }
}

/// Takes of a map of a hundred thousand subjects the few that are asked for. nats-server writes it in order.
struct Collect<'a> {
    counts: &'a mut SubjectCounts,
    after: Option<&'a str>,
    most: usize,
}

impl<'de> DeserializeSeed<'de> for Collect<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Collect<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map from subjects to numbers")
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { counts, after, most } = self;
        while let Some(subject) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            counts.seen += 1;
            if counts.first.is_none() {
                counts.first = Some(subject.clone().into_owned());
            }
            let is_behind = after.is_none_or(|after| &*subject > after);
            counts.skipped += usize::from(!is_behind);
            if is_behind && counts.subjects.len() < most {
                counts.subjects.push((subject.into_owned(), map.next_value()?));
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_subjects_only_those_that_are_asked_for_are_kept() {
        let read = |text: &str, after: Option<&str>, most: usize| {
            let mut counts = SubjectCounts::default();
            let mut deserializer = serde_json::Deserializer::from_str(text);
            Collect { counts: &mut counts, after, most }.deserialize(&mut deserializer).unwrap();
            (counts.seen, counts.subjects.iter().map(|(subject, _)| subject.clone()).collect::<Vec<_>>().join(","))
        };
        let text = r#"{"a":1,"a.b":2,"b":3,"c\"":4}"#;
        assert_eq!(read(text, None, 2), (4, "a,a.b".into()));
        assert_eq!(read(text, Some("a.a"), 10), (4, "a.b,b,c\"".into()));
        assert_eq!(read(text, Some("z"), 10), (4, String::new()));
        assert_eq!(read("null", None, 2), (0, String::new()));
    }
}
