//! Field by field: what is and what is wanted.

use serde_json::{Map, Value};

use super::{Change, Conflict};
use crate::domain::ServerVersion;
use crate::nats::StreamState;
use crate::settings::declared::options::{Changes, Omitted};
use crate::streams::effect::{Circumstances, effect};
use crate::streams::spec::{MANAGED_BY, MARKED_STREAM, Origin, Wanted};

pub(super) struct Differences {
    pub changes: Vec<Change>,
    pub conflicts: Vec<Conflict>,
    pub kept: Vec<Change>,
}

/// What of the fields is not as wanted; what can be changed is changed in `config`.
pub(super) fn differences(
    fields: &[Wanted],
    config: &mut Map<String, Value>,
    (state, at): (&StreamState, i64),
    version: ServerVersion,
) -> Differences {
    let mut differences = Differences { changes: vec![], conflicts: vec![], kept: vec![] };
    for Wanted { field, value, by } in fields {
        let now = config.get(field.name).cloned().unwrap_or_default();
        let (is, should) = (field.canonical(&now), field.canonical(&with_mark_of(field.name, &now, value)));
        let omitted = !by.is_declared() && value.is_null();
        if is == should || field.changes == Changes::AtCreation || (omitted && field.omitted == Omitted::Stays) {
            continue;
        }
        let by = by.clone();
        if version < field.since && !should.is_null() {
            differences.conflicts.push(Conflict::TooOld { field: field.name, since: field.since, version, by });
            continue;
        }
        if !field.can_change(&is, &should, version) {
            // What nobody asks for stays as somebody else wants it.
            if !matches!(by, Origin::Nobody) {
                let (now, wanted) = (field.shown(&is), field.shown(&should));
                differences.conflicts.push(Conflict::Fixed { field: field.name, now, wanted, by });
            }
            continue;
        }
        let circumstances = Circumstances { state, now: at, config, wanted: fields };
        let effect = effect(field.name, &is, &should, &circumstances);
        let change = Change { field: field.name, now: field.shown(&is), wanted: field.shown(&should), by, effect };
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
    let conflict = |wanted: &Wanted| {
        let Wanted { field, value, by } = wanted;
        (version < field.since && !field.canonical(value).is_null()).then(|| Conflict::TooOld {
            field: field.name,
            since: field.since,
            version,
            by: by.clone(),
        })
    };
    fields.iter().filter_map(conflict).collect()
}
