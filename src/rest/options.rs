//! Bodies that hold a name and options of JetStream: read, and described in OpenAPI, by the one table of
//! options.

use std::fmt;

use axum::http::{self, StatusCode};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Value, json};
use utoipa::openapi::schema::{AdditionalProperties, ArrayBuilder, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{KnownFormat, RefOr, SchemaFormat};
use utoipa::{PartialSchema, ToSchema};

use crate::http::body::{self, nearest};
use crate::http::envelope::{Code, Problem};
use crate::json::Plain;
use crate::settings::declared::bodies::{self, Faults};
use crate::settings::declared::options::{Field, Kind};

/// A name, and options beside it.
pub struct Named {
    pub name: Option<String>,
    pub options: Map<String, Value>,
}

impl Named {
    /// Reads a body; `others` are further names of the name.
    pub fn read(headers: &http::HeaderMap, body: &[u8], others: &[&str], code: Code) -> Result<Self, Problem> {
        body::require_json(headers)?;
        let Once(mut options) = body::parse(body, code)?;
        let mut name = None;
        for key in ["name"].iter().chain(others) {
            let given = match options.shift_remove(*key) {
                None | Some(Value::Null) => continue,
                Some(Value::String(given)) => given,
                Some(_) => {
                    let problem = Problem::new(StatusCode::BAD_REQUEST, code, format!("{key} must be a text"));
                    return Err(problem.with_details(json!({ "field": key })));
                }
            };
            if name.as_ref().is_some_and(|name| *name != given) {
                let problem = Problem::new(StatusCode::BAD_REQUEST, code, format!("{key} is another name than name"));
                return Err(problem.with_details(json!({ "field": key })));
            }
            name = Some(given);
        }
        Ok(Self { name, options })
    }

    /// The name, which must be given.
    pub fn name(&self, code: Code) -> Result<&str, Problem> {
        let missing = || {
            Problem::new(StatusCode::BAD_REQUEST, code, "the field name is missing")
                .with_details(json!({ "field": "name" }))
        };
        self.name.as_deref().ok_or_else(missing)
    }

    /// The name is that of the path, or is not given.
    pub fn require_name(&self, of_path: &str, code: Code) -> Result<(), Problem> {
        match &self.name {
            Some(name) if name != of_path => {
                let message = format!("name is {name:?} and the path says {of_path:?}; a name cannot change");
                Err(Problem::new(StatusCode::BAD_REQUEST, code, message).with_details(json!({ "field": "name" })))
            }
            _ => Ok(()),
        }
    }
}

/// What is wrong with options, in words.
pub fn refused(faults: Faults, code: Code) -> Problem {
    let problem = |message: String| Problem::new(StatusCode::BAD_REQUEST, code, message);
    if let Some(field) = faults.unknown.first() {
        let nearest = nearest(field, &faults.known);
        let hint = nearest.map(|nearest| format!("; did you mean {nearest:?}?")).unwrap_or_default();
        let details = json!({ "field": field, "nearest": nearest, "known": faults.known, "unknown": faults.unknown });
        return problem(format!("unknown field {field:?}{hint}")).with_details(details);
    }
    let words: Vec<_> = faults.problems.iter().map(ToString::to_string).collect();
    let each = faults.problems.iter().map(|problem| {
        json!({ "field": problem.variable, "found": problem.found, "rule": problem.rule, "remedy": problem.remedy })
    });
    let details = json!({ "field": faults.problems.first().map(|problem| &problem.variable),
        "problems": each.collect::<Vec<_>>() });
    problem(words.join("; ")).with_details(details)
}

/// A map of JSON in which every key stands once.
struct Once(Map<String, Value>);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reads;

        impl<'de> Visitor<'de> for Reads {
            type Value = Once;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Once, A::Error> {
                let mut read = Map::new();
                while let Some((key, Plain(value))) = map.next_entry::<String, Plain>()? {
                    if read.contains_key(&key) {
                        return Err(A::Error::custom(format_args!("the field {key:?} stands twice")));
                    }
                    read.insert(key, value);
                }
                Ok(Once(read))
            }
        }

        deserializer.deserialize_map(Reads)
    }
}

/// A stream: its name, and options.
pub struct StreamBody;

impl PartialSchema for StreamBody {
    fn schema() -> RefOr<Schema> {
        named(bodies::stream_options())
    }
}

impl ToSchema for StreamBody {}

/// A durable consumer that is asked for messages: its name, and options.
pub struct ConsumerBody;

impl PartialSchema for ConsumerBody {
    fn schema() -> RefOr<Schema> {
        named(bodies::consumer_options())
    }
}

impl ToSchema for ConsumerBody {}

fn named(options: impl Iterator<Item = &'static Field>) -> RefOr<Schema> {
    let name = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(255));
    let name = name.pattern(Some("^[A-Za-z0-9_-]+$"));
    object(options, ObjectBuilder::new().property("name", name.build()))
}

fn object<'a>(fields: impl Iterator<Item = &'a Field>, mut object: ObjectBuilder) -> RefOr<Schema> {
    for field in fields {
        for name in [&field.name].into_iter().chain(field.aliases) {
            object = object.property(*name, schema(field));
        }
    }
    object.additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(false))).into()
}

fn schema(field: &Field) -> RefOr<Schema> {
    let of = |types: &[Type]| {
        let types = types.iter().cloned().chain([Type::Null]).collect();
        ObjectBuilder::new().schema_type(SchemaType::Array(types)).description(Some(field.allowed()))
    };
    let list = |items: ObjectBuilder| {
        let list = ArrayBuilder::new().schema_type(SchemaType::Array(vec![Type::Array, Type::Null]));
        RefOr::from(list.description(Some(field.allowed())).items(items))
    };
    let text = || ObjectBuilder::new().schema_type(Type::String);
    match field.kind {
        Kind::Bool => of(&[Type::Boolean]).into(),
        Kind::Text => of(&[Type::String]).max_length(Some(4096)).into(),
        Kind::StreamName | Kind::Subject => of(&[Type::String]).into(),
        Kind::Time => of(&[Type::String]).format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime))).into(),
        Kind::Word(words) => of(&[Type::String]).enum_values(Some(words.iter().copied())).into(),
        Kind::Count => of(&[Type::Integer]).minimum(Some(0)).into(),
        Kind::Limit(_) => of(&[Type::Integer]).minimum(Some(-1)).into(),
        Kind::Replicas => of(&[Type::Integer]).enum_values(Some([1, 3, 5])).into(),
        Kind::Size(_) => of(&[Type::Integer, Type::String]).into(),
        Kind::Span => of(&[Type::Number, Type::String]).into(),
        Kind::Percent => of(&[Type::Integer, Type::String]).into(),
        Kind::Texts => list(text()),
        Kind::Subjects => list(text()),
        Kind::Spans => list(ObjectBuilder::new().schema_type(SchemaType::Array(vec![Type::Number, Type::String]))),
        Kind::Labels => of(&[Type::Object])
            .additional_properties(Some(AdditionalProperties::RefOr(RefOr::T(Schema::Object(text().build())))))
            .into(),
        Kind::Object(fields) => object(fields.iter(), of(&[Type::Object])),
        Kind::Objects(fields) => {
            let list = ArrayBuilder::new().schema_type(SchemaType::Array(vec![Type::Array, Type::Null]));
            list.items(object(fields.iter(), ObjectBuilder::new())).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Named, Problem> {
        Named::read(&http::HeaderMap::new(), body.as_bytes(), &["durable_name"], Code::InvalidStreamData)
    }

    #[test]
    fn a_name_and_options_are_told_apart() {
        let named = read(r#"{"name": "A", "subjects": ["a"]}"#).unwrap_or_else(|problem| panic!("{problem:?}"));
        assert_eq!((named.name.as_deref(), named.options.len()), (Some("A"), 1));
        assert!(named.require_name("A", Code::InvalidStreamData).is_ok());
        assert!(named.require_name("B", Code::InvalidStreamData).is_err());
        for bad in [
            r#"{"name": 5}"#,
            r#"{"name": "A", "name": "A"}"#,
            r#"{"subjects": ["a"], "subjects": ["b"]}"#,
            r#"{"name": "A", "durable_name": "B"}"#,
            "[]",
            "",
            r#""text""#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(read("{}").is_ok_and(|named| named.name(Code::InvalidStreamData).is_err()));
    }

    #[test]
    fn every_option_stands_in_the_description() {
        let schema = serde_json::to_value(StreamBody::schema()).unwrap();
        let properties = schema["properties"].as_object().unwrap();
        for field in bodies::stream_options() {
            assert!(properties.contains_key(field.name), "{}", field.name);
        }
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(properties["max_age"]["type"], json!(["number", "string", "null"]));
        assert_eq!(properties["sources"]["items"]["properties"]["name"]["type"], json!(["string", "null"]));
    }
}
