//! Desired and existing configuration → what to do. Pure.

use std::fmt;

use serde_json::{Map, Value, json};

use super::spec::{Desired, MANAGED_BY};
use crate::nats::{StreamInfo, StreamState};

#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    Create(Map<String, Value>),
    /// Exists; nothing that can be changed has to be.
    Keep {
        conflicts: Vec<Conflict>,
    },
    Update {
        config: Map<String, Value>,
        changes: Vec<Change>,
        conflicts: Vec<Conflict>,
    },
}

/// One field that gets another value.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub field: String,
    pub now: Value,
    pub wanted: Value,
    /// What the change does to messages, when it does something.
    pub effect: Option<String>,
}

/// One field that cannot get its wanted value while the stream exists.
#[derive(Clone, Debug, PartialEq)]
pub struct Conflict {
    pub field: String,
    pub now: Value,
    pub wanted: Value,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} → {}", self.field, self.now, self.wanted)?;
        match &self.effect {
            Some(effect) => write!(f, " ({effect})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is {} and cannot become {} while the stream exists: keep it and set the variable to what it is, or \
             back the stream up, recreate and restore it",
            self.field, self.now, self.wanted
        )
    }
}

impl Plan {
    pub fn conflicts(&self) -> &[Conflict] {
        match self {
            Self::Create(_) => &[],
            Self::Keep { conflicts } | Self::Update { conflicts, .. } => conflicts,
        }
    }
}

/// What has to be done so that the stream on a server of `version` becomes as desired.
pub fn plan(desired: &Desired, existing: Option<&StreamInfo>, version: (u32, u32)) -> Plan {
    let Some(existing) = existing else {
        return Plan::Create(creation(desired));
    };
    // Update replaces the whole configuration, so it starts from what is there: fields that we do
    // not know stay as they are.
    let mut config = existing.config.clone();
    let mut changes = Vec::new();
    let mut conflicts = Vec::new();
    let mut wanted = desired.config.clone();
    wanted.insert("subjects".into(), json!(wanted_subjects(desired, &existing.config)));
    if let Some(replicas) = desired.replicas {
        wanted.insert("num_replicas".into(), replicas.into());
    }
    for (field, value) in wanted {
        let now = config.get(&field).cloned().unwrap_or(Value::Null);
        if same(&field, &now, &value) {
            continue;
        }
        if is_immutable(&field, &now, &value, version) {
            conflicts.push(Conflict { field, now, wanted: value });
        } else {
            let effect = effect(&field, &now, &value, &existing.state);
            changes.push(Change { field: field.clone(), now, wanted: value.clone(), effect });
            config.insert(field, value);
        }
    }
    if changes.is_empty() {
        return Plan::Keep { conflicts };
    }
    mark(&mut config);
    Plan::Update { config, changes, conflicts }
}

fn creation(desired: &Desired) -> Map<String, Value> {
    let mut config = desired.config.clone();
    config.insert("subjects".into(), json!(desired.subjects));
    config.insert("num_replicas".into(), desired.replicas.unwrap_or(1).into());
    mark(&mut config);
    config
}

fn mark(config: &mut Map<String, Value>) {
    let metadata = config.entry("metadata").or_insert_with(|| json!({}));
    if let Value::Object(metadata) = metadata {
        metadata.insert(MANAGED_BY.0.into(), MANAGED_BY.1.into());
    }
}

fn wanted_subjects(desired: &Desired, existing: &Map<String, Value>) -> Vec<String> {
    let mut subjects: Vec<String> = subjects_of(existing);
    subjects.retain(|subject| !desired.retired_subjects.contains(subject));
    for subject in &desired.subjects {
        if !subjects.contains(subject) {
            subjects.push(subject.clone());
        }
    }
    subjects
}

/// The subjects of a configuration.
pub fn subjects_of(config: &Map<String, Value>) -> Vec<String> {
    let subjects = config.get("subjects").and_then(Value::as_array);
    subjects.into_iter().flatten().filter_map(|s| s.as_str().map(str::to_owned)).collect()
}

/// Servers leave out what has its default value and fill in what was left out.
fn same(field: &str, now: &Value, wanted: &Value) -> bool {
    let number = |value: &Value| match value {
        Value::Null => Some(0),
        other => other.as_i64(),
    };
    match field {
        "compression" if now.is_null() => wanted == "none",
        "max_consumers" | "max_msgs" | "max_bytes" | "max_age" | "max_msgs_per_subject" | "max_msg_size" => {
            match (number(now), number(wanted)) {
                (Some(now), Some(wanted)) => now.max(0) == wanted.max(0),
                _ => false,
            }
        }
        _ => now == wanted,
    }
}

/// What no server changes in place (server/stream.go, configUpdateCheck), or not one this old.
fn is_immutable(field: &str, now: &Value, wanted: &Value, version: (u32, u32)) -> bool {
    match field {
        "name" | "storage" => true,
        "retention" => now == "workqueue" || wanted == "workqueue",
        "max_consumers" => version < (2, 12),
        _ => false,
    }
}

fn effect(field: &str, now: &Value, wanted: &Value, state: &StreamState) -> Option<String> {
    let limit = wanted.as_i64().filter(|limit| *limit > 0);
    match field {
        "max_msgs" => {
            let surplus = state.messages.saturating_sub(limit? as u64);
            (surplus > 0).then(|| format!("drops {surplus} messages"))
        }
        "max_bytes" => {
            let surplus = state.bytes.saturating_sub(limit? as u64);
            let share = state.messages as f64 * surplus as f64 / state.bytes.max(1) as f64;
            (surplus > 0).then(|| format!("drops ≈ {share:.0} messages"))
        }
        "max_age" => {
            let before = now.as_i64().filter(|age| *age > 0).unwrap_or(i64::MAX);
            (limit? < before && state.messages > 0).then(|| "drops messages that are older".to_owned())
        }
        "subjects" => {
            let wanted = wanted.as_array()?;
            let removed: Vec<_> = now.as_array()?.iter().filter(|s| !wanted.contains(s)).collect();
            (!removed.is_empty()).then(|| {
                let removed: Vec<_> = removed.iter().filter_map(|s| s.as_str()).collect();
                format!("stops capturing {}; messages that are there stay", removed.join(", "))
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    const NEW: (u32, u32) = (2, 15);

    fn desired(pairs: &[(&str, &str)]) -> Desired {
        Desired::market_data(&Settings::load(&pairs, &[]).unwrap().settings.market_data)
    }

    fn existing(pairs: &[(&str, &str)], messages: u64) -> StreamInfo {
        let Plan::Create(mut config) = plan(&desired(pairs), None, NEW) else { panic!() };
        // As a server answers: defaults filled in, things of its own added.
        config.insert("allow_direct".into(), true.into());
        config.insert("consumer_limits".into(), json!({}));
        config["metadata"].as_object_mut().unwrap().insert("_nats.level".into(), "1".into());
        StreamInfo { config, state: StreamState { messages, bytes: messages * 100, ..StreamState::default() } }
    }

    #[test]
    fn a_missing_stream_is_created_with_all_families_and_our_mark() {
        let Plan::Create(config) = plan(&desired(&[]), None, NEW) else { panic!() };
        assert_eq!(subjects_of(&config).len(), 8);
        assert_eq!(config["metadata"]["managed-by"], "unified-nats");
        assert_eq!(config["max_age"], 7_200_000_000_000i64);
        assert_eq!(config["num_replicas"], 1);
    }

    #[test]
    fn what_is_as_desired_is_kept() {
        assert_eq!(plan(&desired(&[]), Some(&existing(&[], 5)), NEW), Plan::Keep { conflicts: vec![] });
        let mut sparse = existing(&[("STREAM_MAX_AGE", "0"), ("STREAM_MAX_MSGS", "-1")], 5);
        for field in ["max_age", "compression"] {
            sparse.config.remove(field);
        }
        sparse.config.insert("max_msgs".into(), 0.into());
        let wanted = desired(&[("STREAM_MAX_AGE", "-1"), ("STREAM_MAX_MSGS", "0")]);
        assert_eq!(plan(&wanted, Some(&sparse), NEW), Plan::Keep { conflicts: vec![] });
    }

    #[test]
    fn other_limits_are_changed_and_unknown_fields_carried_over() {
        let wanted = desired(&[("STREAM_MAX_MSGS", "10"), ("STREAM_MAX_BYTES", "500")]);
        let Plan::Update { config, changes, conflicts } = plan(&wanted, Some(&existing(&[], 25)), NEW) else {
            panic!()
        };
        assert!(conflicts.is_empty());
        assert_eq!((&config["allow_direct"], &config["max_msgs"]), (&true.into(), &10.into()));
        assert_eq!(config["metadata"]["_nats.level"], "1");
        let effects: Vec<_> = changes.iter().map(|c| (c.field.as_str(), c.effect.as_deref())).collect();
        assert_eq!(effects, [("max_msgs", Some("drops 15 messages")), ("max_bytes", Some("drops ≈ 20 messages"))]);
    }

    #[test]
    fn what_cannot_change_is_a_conflict_and_the_rest_is_changed() {
        let wanted = desired(&[("STORAGE_TYPE", "memory"), ("STREAM_MAX_MSGS", "10")]);
        let Plan::Update { config, conflicts, .. } = plan(&wanted, Some(&existing(&[], 1)), NEW) else { panic!() };
        assert_eq!(config["storage"], "file");
        assert_eq!(conflicts.len(), 1);
        let text = conflicts[0].to_string();
        assert!(text.starts_with("storage is \"file\" and cannot become \"memory\""), "{text}");
    }

    #[test]
    fn what_is_immutable_depends_on_values_and_version() {
        for (pairs, version, conflict) in [
            (("RETENTION_POLICY", "workqueue"), NEW, true),
            (("RETENTION_POLICY", "interest"), NEW, false),
            (("STREAM_MAX_CONSUMERS", "60"), (2, 11), true),
            (("STREAM_MAX_CONSUMERS", "60"), (2, 12), false),
        ] {
            let plan = plan(&desired(&[pairs]), Some(&existing(&[], 0)), version);
            assert_eq!(!plan.conflicts().is_empty(), conflict, "{pairs:?} {version:?}");
        }
    }

    #[test]
    fn replicas_are_never_lowered_by_omission() {
        let mut three = existing(&[], 0);
        three.config.insert("num_replicas".into(), 3.into());
        assert_eq!(plan(&desired(&[]), Some(&three), NEW), Plan::Keep { conflicts: vec![] });
    }

    #[test]
    fn a_change_of_style_retires_our_old_subjects_and_leaves_foreign_ones() {
        let mut suffixed = existing(&[], 3);
        suffixed.config["subjects"].as_array_mut().unwrap().push("custom.>".into());
        let both = plan(&desired(&[("STREAM_SUBJECT_STYLE", "both")]), Some(&suffixed), NEW);
        let Plan::Update { config, .. } = both else { panic!() };
        assert_eq!(subjects_of(&config).len(), 17);
        let plain = plan(&desired(&[("STREAM_SUBJECT_STYLE", "plain")]), Some(&suffixed), NEW);
        let Plan::Update { config, changes, .. } = plain else { panic!() };
        let subjects = subjects_of(&config);
        assert_eq!(subjects.len(), 9);
        assert!(subjects.contains(&"custom.>".to_owned()) && !subjects.contains(&"trade-data.>".to_owned()));
        assert!(changes[0].effect.as_ref().unwrap().starts_with("stops capturing orderbook-data.>"));
    }
}
