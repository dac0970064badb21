//! Field by field: what is and what is wanted.

use serde_json::{Map, Value};

use super::{Change, Conflict};
use crate::domain::ServerVersion;
use crate::nats::StreamState;
use crate::settings::declared::derived::{Around, is_filled_in, is_the_same, may_be_filled_in};
use crate::settings::declared::options::{Changes, Field, Omitted};
use crate::streams::effect::{Circumstances, effect};
use crate::streams::spec::{MANAGED_BY, MARKED_STREAM, SpecOrigin, Wanted};

pub(super) struct Differences {
    pub changes: Vec<Change>,
    pub conflicts: Vec<Conflict>,
    pub kept: Vec<Change>,
}

/// The server that is asked.
#[derive(Clone, Copy)]
pub(super) struct Server {
    pub version: ServerVersion,
    /// Limits that nobody tells may lower what it fills in.
    pub limited: bool,
    /// Whether the origin of a mirror allows direct gets, where that is known.
    pub origin_direct: Option<bool>,
}

/// What of the fields is not as wanted; what can be changed is changed in `config`.
pub(super) fn differences(
    fields: &[Wanted],
    config: &mut Map<String, Value>,
    (state, at): (&StreamState, i64),
    Server { version, limited, origin_direct }: Server,
) -> Differences {
    let mut differences = Differences { changes: vec![], conflicts: vec![], kept: vec![] };
    let afterwards = afterwards(fields, config);
    let around = Around { config: &afterwards, limited, origin_direct };
    for Wanted { field, value, by } in fields {
        let now = config.get(field.name).cloned().unwrap_or_default();
        let (is, should) = (field.canonical(&now), field.canonical(&with_mark_of(field.name, &now, value)));
        if is == should || field.changes == Changes::AtCreation || stays(field, value, by) {
            continue;
        }
        if should.is_null() && may_be_filled_in(field.name, &now, around)
            || is_the_same(field.name, &is, &should, around)
        {
            continue;
        }
        let by = by.clone();
        if let Some((field, since)) = field.needs(&should).filter(|(_, since)| version < *since) {
            differences.conflicts.push(Conflict::TooOld { field, since, version, by });
            continue;
        }
        if !field.can_change(&is, &should, version) {
            // What nobody asks for stays as somebody else wants it.
            if !matches!(by, SpecOrigin::Nobody) {
                let (now, wanted) = (field.with_default(&is), field.with_default(&should));
                differences.conflicts.push(Conflict::Fixed { field: field.name, now, wanted, by });
            }
            continue;
        }
        let circumstances = Circumstances { state, now: at, config, wanted: fields };
        let effect = effect(field.name, &is, &should, &circumstances);
        let filled_in = should.is_null() && is_filled_in(field.name);
        let wanted = if filled_in { Value::Null } else { field.with_default(&should) };
        let change = Change { field: field.name, now: field.with_default(&is), wanted, by, effect };
        // Nothing we do deletes a message except what an operator declared.
        if change.effect.is_some() && !change.by.is_declared() {
            differences.kept.push(change);
            continue;
        }
        differences.changes.push(change);
        match with_mark_of(field.name, &now, value) {
            Value::Null => _ = config.remove(field.name),
            value => _ = config.insert(field.name.into(), value),
        }
    }
    differences
}

/// Whether a field that is not declared any more, or only has a default, is as good as any.
fn stays(field: &Field, value: &Value, by: &SpecOrigin) -> bool {
    let omitted = !by.is_declared() && value.is_null();
    omitted && (field.omitted == Omitted::Stays || matches!(by, SpecOrigin::DefaultOf(_)))
}

/// The object as it should be.
fn afterwards(fields: &[Wanted], config: &Map<String, Value>) -> Map<String, Value> {
    let mut config = config.clone();
    for Wanted { field, value, by } in fields.iter().filter(|wanted| !stays(wanted.field, &wanted.value, &wanted.by)) {
        let _ = by;
        match value {
            Value::Null => _ = config.remove(field.name),
            value => _ = config.insert(field.name.into(), value.clone()),
        }
    }
    config
}

/// Labels keep our mark and those of the server.
fn with_mark_of(field: &str, now: &Value, wanted: &Value) -> Value {
    if field != "metadata" || wanted.is_null() {
        return wanted.clone();
    }
    let mut labels = wanted.as_object().cloned().unwrap_or_default();
    for (name, value) in now.as_object().into_iter().flatten() {
        if [MANAGED_BY.0, MARKED_STREAM].contains(&name.as_str()) || name.starts_with("_nats.") {
            labels.insert(name.clone(), value.clone());
        }
    }
    labels.into()
}

pub(super) fn too_old(fields: &[Wanted], version: ServerVersion) -> Vec<Conflict> {
    let conflict = |Wanted { field, value, by }: &Wanted| {
        let (field, since) = field.needs(&field.canonical(value))?;
        (version < since).then(|| Conflict::TooOld { field, since, version, by: by.clone() })
    };
    fields.iter().filter_map(conflict).collect()
}
