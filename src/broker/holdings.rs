//! Under which subjects a stream stores messages: a transform makes those others than it captures, and a copy
//! of other streams captures none.

use serde_json::{Map, Value};

use crate::domain::Subject;
use crate::nats::StreamInfo;

/// What a stream may hold messages of, as far as its configuration tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holdings {
    /// Every message that the configuration tells of matches one of them.
    pub subjects: Vec<Subject>,
    /// It also copies whatever another stream holds.
    pub is_open: bool,
    /// It stores messages under other subjects than they came with.
    pub is_transformed: bool,
}

impl Holdings {
    pub fn of(info: &StreamInfo) -> Self {
        let config = &info.config;
        let own = config.get("subjects").and_then(Value::as_array).into_iter().flatten().filter_map(subject);
        let mut held = Self { subjects: own.collect(), is_open: false, is_transformed: false };
        let sources = config.get("sources").and_then(Value::as_array).into_iter().flatten();
        let copies: Vec<_> = config.get("mirror").into_iter().chain(sources).filter_map(Value::as_object).collect();
        if held.subjects.is_empty() && copies.is_empty() {
            // Such a stream captures its own name.
            held.subjects.extend(info.name().parse::<Subject>());
        }
        for copy in copies {
            held.add_copied(copy);
        }
        if let Some(transform) = config.get("subject_transform").and_then(Value::as_object) {
            held.transform(&Transform::of(transform));
        }
        held
    }

    /// Whether there may be messages that the filter matches.
    pub fn may_hold(&self, filter: &Subject) -> bool {
        self.is_open || self.is_known_to_hold(filter)
    }

    /// The same of what the configuration names.
    pub fn is_known_to_hold(&self, filter: &Subject) -> bool {
        self.subjects.iter().any(|held| held.overlaps(filter))
    }

    fn add_copied(&mut self, copy: &Map<String, Value>) {
        let transforms = copy.get("subject_transforms").and_then(Value::as_array).into_iter().flatten();
        let transforms: Vec<_> = transforms.filter_map(Value::as_object).map(Transform::of).collect();
        let filter = copy.get("filter_subject").and_then(subject);
        self.is_transformed |= transforms.iter().any(Transform::is_one);
        match filter {
            // They filter as well.
            _ if !transforms.is_empty() => self.subjects.extend(transforms.into_iter().filter_map(|one| one.image)),
            Some(filter) => self.subjects.push(filter),
            None => self.is_open = true,
        }
    }

    /// Whatever comes in, itself or by a copy, goes through the stream's own transform.
    fn transform(&mut self, transform: &Transform) {
        let (Some(source), Some(image)) = (&transform.source, &transform.image) else { return };
        self.is_transformed |= transform.is_one();
        let is_hit = self.is_open || self.subjects.iter().any(|held| held.overlaps(source));
        self.subjects.retain(|held| !source.covers(held));
        if is_hit {
            self.subjects.push(image.clone());
        }
    }
}

struct Transform {
    /// [`None`] where it is no subject, which nats-server would not have taken.
    source: Option<Subject>,
    /// Matches all that it makes; [`None`] where that cannot be said.
    image: Option<Subject>,
}

impl Transform {
    fn of(transform: &Map<String, Value>) -> Self {
        let part = |name: &str| transform.get(name).and_then(Value::as_str).filter(|part| !part.is_empty());
        let source = part("src").unwrap_or(">");
        // Without a destination it only filters.
        let image = image_of(part("dest").unwrap_or(source)).parse().ok();
        Self { image, source: source.parse().ok() }
    }

    /// Not only a filter.
    fn is_one(&self) -> bool {
        self.image != self.source
    }
}

/// Functions of a destination that make so many tokens as the subject has to offer.
const MANY: [&str; 5] = ["split", "splitfromleft", "splitfromright", "slicefromleft", "slicefromright"];

/// A filter for all that a destination makes: `out.$1.{{partition(3,1)}}.{{split(2,-)}}` is `out.*.*.>`.
fn image_of(destination: &str) -> String {
    let mut tokens = vec![];
    let mut rest = destination;
    while !rest.is_empty() {
        // A function may hold dots.
        let from = if rest.starts_with("{{") { rest.find("}}").unwrap_or(0) } else { 0 };
        let end = rest[from..].find('.').map_or(rest.len(), |dot| from + dot);
        let (token, behind) = (&rest[..end], rest[end..].strip_prefix('.').unwrap_or_default());
        let function = token.strip_prefix("{{").map(|call| call.split(['(', '}']).next().unwrap_or_default().trim());
        match function.map(str::to_ascii_lowercase) {
            Some(name) if MANY.contains(&name.as_str()) => {
                tokens.push(">");
                break;
            }
            Some(_) => tokens.push("*"),
            None if token.starts_with('$') && token[1..].bytes().all(|byte| byte.is_ascii_digit()) => tokens.push("*"),
            None => tokens.push(token),
        }
        rest = behind;
    }
    tokens.join(".")
}

fn subject(value: &Value) -> Option<Subject> {
    value.as_str().and_then(|text| text.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn held(config: Value) -> Holdings {
        let info = json!({ "config": config, "state": {} });
        Holdings::of(&serde_json::from_value(info).unwrap())
    }

    fn names(holdings: &Holdings) -> Vec<&str> {
        holdings.subjects.iter().map(Subject::as_str).collect()
    }

    #[test]
    fn a_stream_stores_what_it_captures_unless_it_transforms_it() {
        let plain = held(json!({ "name": "S", "subjects": ["a.>", "b"] }));
        assert_eq!((names(&plain), plain.is_open, plain.is_transformed), (vec!["a.>", "b"], false, false));
        assert_eq!(names(&held(json!({ "name": "S" }))), ["S"]);
        for (transform, expected) in [
            (json!({ "src": "a.>", "dest": "x.>" }), vec!["b", "x.>"]),
            (json!({ "src": "a.*", "dest": "x.$1.y" }), vec!["a.>", "b", "x.*.y"]),
            (json!({ "src": "", "dest": "x.>" }), vec!["x.>"]),
            (json!({ "dest": "x.>" }), vec!["x.>"]),
            (json!({ "src": "c", "dest": "x" }), vec!["a.>", "b"]),
        ] {
            let made = held(json!({ "name": "S", "subjects": ["a.>", "b"], "subject_transform": transform }));
            assert_eq!((names(&made), made.is_open, made.is_transformed), (expected, false, true), "{transform}");
        }
    }

    #[test]
    fn a_copy_stores_what_its_origin_does_unless_it_is_filtered_or_transformed() {
        let open = held(json!({ "name": "M", "mirror": { "name": "S" } }));
        assert_eq!((names(&open), open.is_open, open.is_transformed), (vec![], true, false));
        let filtered = held(json!({ "name": "M", "mirror": { "name": "S", "filter_subject": "a.*" } }));
        assert_eq!((names(&filtered), filtered.is_open), (vec!["a.*"], false));
        let sources = json!([
            { "name": "S", "subject_transforms": [{ "src": "a.>", "dest": "b.>" }, { "src": "c", "dest": "" }] },
            { "name": "T", "filter_subject": "d" },
        ]);
        let made = held(json!({ "name": "A", "subjects": ["own"], "sources": sources }));
        assert_eq!((names(&made), made.is_open, made.is_transformed), (vec!["own", "b.>", "c", "d"], false, true));
        // What is copied goes through the stream's own transform, too.
        let twice = json!({ "src": "b.>", "dest": "e.>" });
        let made = held(json!({ "name": "A", "sources": sources, "subject_transform": twice }));
        assert_eq!(names(&made), ["c", "d", "e.>"]);
        let open = held(json!({ "name": "M", "mirror": { "name": "S" }, "subject_transform": twice }));
        assert_eq!((names(&open), open.is_open, open.is_transformed), (vec!["e.>"], true, true));
        let only_filters = json!([{ "name": "S", "subject_transforms": [{ "src": "a", "dest": "" }] }]);
        assert!(!held(json!({ "name": "A", "sources": only_filters })).is_transformed);
    }

    #[test]
    fn a_destination_is_a_filter_for_what_it_makes() {
        for (destination, image) in [
            ("a.b", "a.b"),
            ("a.>", "a.>"),
            ("a.*.$2", "a.*.*"),
            ("$1", "*"),
            ("a.$x", "a.$x"),
            ("a.{{wildcard(1)}}.b", "a.*.b"),
            ("a.{{ Partition( 3, 1 ) }}.{{Left(1,2)}}", "a.*.*"),
            ("a.{{split(1,-)}}.b", "a.>"),
            ("a.{{SliceFromLeft(1,2)}}", "a.>"),
            ("a.{{wildcard(1.5)}}.b", "a.*.b"),
            ("a.{{broken", "a.*"),
        ] {
            assert_eq!(image_of(destination), image, "{destination}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(source in ".{0,12}", dest in r"([a{}$.()*>1é]|split){0,12}") {
            let transform = json!({ "src": source, "dest": dest });
            let copied = json!({ "name": "S", "subject_transforms": [transform] });
            let _ = held(json!({ "name": "S", "subjects": ["a.>"], "subject_transform": transform }));
            let _ = held(json!({ "name": "S", "mirror": copied, "subject_transform": transform }));
        }
    }
}
