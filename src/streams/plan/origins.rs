//! Streams that others take their messages from: what follows from theirs.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Conflict;
use crate::nats::StreamInfo;
use crate::settings::declared::options::readable;
use crate::streams::spec::{Desired, DesiredStream, SpecOrigin, Wanted};

/// The streams as they are going to be.
pub(super) struct Origins<'a> {
    pub desired: &'a Desired,
    pub existing: &'a BTreeMap<&'a str, &'a StreamInfo>,
}

impl Origins<'_> {
    /// A field of a stream that is there or is going to be.
    fn field(&self, stream: &str, field: &str) -> Option<Value> {
        if let Some(wanted) = self.desired.stream(stream).and_then(|stream| wanted(stream, field)) {
            return Some(wanted.value.clone());
        }
        self.existing.get(stream).map(|info| info.config.get(field).cloned().unwrap_or_default())
    }

    /// Whether the origin of a mirror will allow direct gets, where it is known.
    pub fn allows_direct(&self, mirror: &DesiredStream) -> Option<bool> {
        let origin = here(&wanted(mirror, "mirror")?.value)?;
        Some(self.field(origin, "allow_direct")? == true)
    }

    /// What the server will not do as declared, and goes on without.
    pub fn overruled(&self, stream: &DesiredStream) -> Option<Conflict> {
        let direct = self.allows_direct(stream)?;
        let origin = here(&wanted(stream, "mirror")?.value)?;
        let own = wanted(stream, "mirror_direct").filter(|own| own.by.is_declared())?;
        ((own.value == true) != direct).then(|| Conflict::Contradiction {
            field: "mirror_direct",
            found: own.value.to_string(),
            rule: format!("follows allow_direct of stream {origin}, which is {direct}"),
            remedy: "change it there, or leave it out".into(),
            by: own.by.clone(),
        })
    }

    /// Messages that are taken from another stream have to fit.
    pub fn too_small(&self, stream: &DesiredStream) -> Option<Conflict> {
        let own = wanted(stream, "max_msg_size")?;
        let size = own.value.as_i64().filter(|size| *size > 0)?;
        let of = |field: &str| wanted(stream, field).map(|wanted| wanted.value.clone()).unwrap_or_default();
        let sources = of("sources");
        let mirror = of("mirror");
        let all = sources.as_array().into_iter().flatten().chain([&mirror]);
        let (origin, theirs) = all.filter_map(here).find_map(|origin| {
            let theirs = self.field(origin, "max_msg_size")?.as_i64()?;
            (theirs > size).then(|| (origin.to_owned(), theirs))
        })?;
        Some(Conflict::Contradiction {
            field: "max_msg_size",
            found: readable("max_msg_size", &size.into()),
            rule: format!("must not be below that of stream {origin}, which is {theirs}"),
            remedy: "raise it, or lower that one".into(),
            by: own.by.clone(),
        })
    }
}

fn wanted<'a>(stream: &'a DesiredStream, field: &str) -> Option<&'a Wanted> {
    // What nobody asks for stays where it is there.
    let is_asked = |wanted: &&Wanted| !wanted.value.is_null() || wanted.by == SpecOrigin::Nobody;
    stream.fields.iter().find(|wanted| wanted.field.name == field).filter(is_asked)
}

/// The name of a stream of the same account.
fn here(source: &Value) -> Option<&str> {
    source.get("name")?.as_str().filter(|_| source.get("external").is_none())
}
