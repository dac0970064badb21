//! Desired and existing configuration → what to do. Pure.

use std::fmt;

use serde_json::{Map, Value, json};

use super::spec::{Desired, MANAGED_BY, captures, covers, variable_of};
use crate::nats::{StreamInfo, StreamState};

#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub action: Action,
    /// What cannot be made as desired.
    pub conflicts: Vec<Conflict>,
    /// What is left as it is, because only a default asks for a change that would cost messages.
    pub kept: Vec<Change>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Create(Map<String, Value>),
    Nothing,
    Update { config: Map<String, Value>, changes: Vec<Change> },
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

impl Plan {
    /// What will not be as desired, in sentences for the operator.
    pub fn remarks(&self) -> Vec<String> {
        let conflicts = self.conflicts.iter().map(|conflict| format!("conflict: {conflict}"));
        conflicts.chain(self.kept.iter().map(Change::why_kept)).collect()
    }
}

impl Change {
    /// For a change that was left out.
    pub fn why_kept(&self) -> String {
        let variable = variable_of(&self.field);
        format!(
            "{} stays {}: the default {} {}; set {variable} if that is wanted",
            self.field,
            self.now,
            self.wanted,
            self.effect.as_deref().unwrap_or_default(),
        )
    }
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
            "{} is {} and cannot become {} while the stream exists: keep it and set {} to what it is, or back the \
             stream up, recreate and restore it",
            self.field,
            self.now,
            self.wanted,
            variable_of(&self.field)
        )
    }
}

/// What has to be done so that the stream on a server of `version` becomes as desired.
pub fn plan(desired: &Desired, existing: Option<&StreamInfo>, version: (u32, u32)) -> Plan {
    let (mut conflicts, mut kept, mut changes) = (vec![], vec![], vec![]);
    let Some(existing) = existing else {
        return Plan { action: Action::Create(creation(desired)), conflicts, kept };
    };
    // Update replaces the whole configuration, so it starts from what is there: fields that we do
    // not know stay as they are.
    let mut config = existing.config.clone();
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
            continue;
        }
        let effect = effect(&field, &now, &value, &existing.state);
        let change = Change { field: field.clone(), now, wanted: value.clone(), effect };
        // Nothing we do deletes a message except what an operator declared.
        if change.effect.is_some() && !desired.declared.contains(&variable_of(&field)) {
            kept.push(change);
        } else {
            changes.push(change);
            config.insert(field, value);
        }
    }
    let action = if changes.is_empty() {
        Action::Nothing
    } else {
        mark(&mut config);
        Action::Update { config, changes }
    };
    Plan { action, conflicts, kept }
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
    subjects.retain(|subject| {
        let retired = desired.retired_subjects.contains(subject);
        // A stream's subjects must not overlap: a narrower one gives way to the family's filter.
        let covered = desired.subjects.iter().any(|filter| filter != subject && covers(filter, subject));
        !retired && !covered
    });
    for subject in &desired.subjects {
        if !captures(&subjects, subject) {
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

/// What the change costs, as a phrase that follows "it".
fn effect(field: &str, now: &Value, wanted: &Value, state: &StreamState) -> Option<String> {
    let limit = wanted.as_i64().filter(|limit| *limit > 0);
    let narrower = || limit.is_some_and(|limit| now.as_i64().filter(|now| *now > 0).is_none_or(|now| limit < now));
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
        "max_age" => (state.messages > 0 && narrower()).then(|| "drops messages that are older".to_owned()),
        "max_msgs_per_subject" => {
            (state.messages > 0 && narrower()).then(|| "drops the older messages of a subject".to_owned())
        }
        "retention" => {
            (state.messages > 0 && wanted == "interest").then(|| "drops messages that no consumer awaits".to_owned())
        }
        "subjects" => {
            let wanted = wanted.as_array()?;
            let still_captured = |subject: &Value| {
                let covers = |filter: &Value| Some(covers(filter.as_str()?, subject.as_str()?));
                wanted.iter().any(|filter| filter == subject || covers(filter) == Some(true))
            };
            let removed: Vec<_> = now.as_array()?.iter().filter(|s| !still_captured(s)).collect();
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

    fn created(pairs: &[(&str, &str)]) -> Map<String, Value> {
        match plan(&desired(pairs), None, NEW).action {
            Action::Create(config) => config,
            other => panic!("{other:?}"),
        }
    }

    /// As a server answers: defaults filled in, things of its own added.
    fn existing(pairs: &[(&str, &str)], messages: u64) -> StreamInfo {
        let mut config = created(pairs);
        config.insert("allow_direct".into(), true.into());
        config.insert("consumer_limits".into(), json!({}));
        config["metadata"].as_object_mut().unwrap().insert("_nats.level".into(), "1".into());
        StreamInfo {
            config,
            state: StreamState { messages, bytes: messages * 100, ..StreamState::default() },
            created: String::new(),
        }
    }

    fn updated(plan: Plan) -> (Map<String, Value>, Vec<Change>) {
        match plan.action {
            Action::Update { config, changes } => (config, changes),
            other => panic!("{other:?}"),
        }
    }

    const NOTHING: Plan = Plan { action: Action::Nothing, conflicts: vec![], kept: vec![] };

    #[test]
    fn a_missing_stream_is_created_with_all_families_and_our_mark() {
        let config = created(&[]);
        assert_eq!(subjects_of(&config).len(), 8);
        assert_eq!(config["metadata"]["managed-by"], "unified-nats");
        assert_eq!(config["max_age"], 7_200_000_000_000i64);
        assert_eq!(config["num_replicas"], 1);
    }

    #[test]
    fn what_is_as_desired_is_kept() {
        assert_eq!(plan(&desired(&[]), Some(&existing(&[], 5)), NEW), NOTHING);
        let mut sparse = existing(&[("STREAM_MAX_AGE", "0"), ("STREAM_MAX_MSGS", "-1")], 5);
        for field in ["max_age", "compression"] {
            sparse.config.remove(field);
        }
        sparse.config.insert("max_msgs".into(), 0.into());
        let wanted = desired(&[("STREAM_MAX_AGE", "-1"), ("STREAM_MAX_MSGS", "0")]);
        assert_eq!(plan(&wanted, Some(&sparse), NEW), NOTHING);
    }

    #[test]
    fn other_limits_are_changed_and_unknown_fields_carried_over() {
        let wanted = desired(&[("STREAM_MAX_MSGS", "10"), ("STREAM_MAX_BYTES", "500")]);
        let (config, changes) = updated(plan(&wanted, Some(&existing(&[], 25)), NEW));
        assert_eq!((&config["allow_direct"], &config["max_msgs"]), (&true.into(), &10.into()));
        assert_eq!(config["metadata"]["_nats.level"], "1");
        let effects: Vec<_> = changes.iter().map(|c| (c.field.as_str(), c.effect.as_deref())).collect();
        assert_eq!(effects, [("max_msgs", Some("drops 15 messages")), ("max_bytes", Some("drops ≈ 20 messages"))]);
    }

    #[test]
    fn what_cannot_change_is_a_conflict_and_the_rest_is_changed() {
        let wanted = desired(&[("STORAGE_TYPE", "memory"), ("STREAM_MAX_MSGS", "10")]);
        let plan = plan(&wanted, Some(&existing(&[], 1)), NEW);
        let conflicts = plan.conflicts.clone();
        let (config, _) = updated(plan);
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
            assert_eq!(!plan.conflicts.is_empty(), conflict, "{pairs:?} {version:?}");
        }
    }

    #[test]
    fn narrower_and_wider_subjects_of_the_stream_do_not_overlap_the_families() {
        let mut narrow = existing(&[], 3);
        narrow.config["subjects"] = json!(["trade-data.*.*.*", "orderbook-data.x.>", "other.x"]);
        let plan_narrow = plan(&desired(&[]), Some(&narrow), NEW);
        assert_eq!(plan_narrow.kept, vec![]);
        let subjects = subjects_of(&updated(plan_narrow).0);
        assert_eq!(subjects.len(), 9, "{subjects:?}");
        assert!(subjects.contains(&"other.x".to_owned()) && !subjects.contains(&"trade-data.*.*.*".to_owned()));

        narrow.config["subjects"] = json!([">"]);
        assert_eq!(plan(&desired(&[]), Some(&narrow), NEW), NOTHING);
    }

    #[test]
    fn a_default_never_costs_messages() {
        let generous = [
            ("STREAM_MAX_MSGS", "-1"),
            ("STREAM_MAX_BYTES", "-1"),
            ("STREAM_MAX_AGE", "0"),
            ("STREAM_SUBJECT_STYLE", "plain"),
        ];
        let full = existing(&generous, 20_000_000);
        let by_default = plan(&desired(&[]), Some(&full), NEW);
        let kept: Vec<_> = by_default.kept.iter().map(|change| change.field.as_str()).collect();
        assert_eq!(kept, ["max_msgs", "max_bytes", "max_age"]);
        let why = by_default.kept[0].why_kept();
        assert_eq!(
            why,
            "max_msgs stays -1: the default 1000000 drops 19000000 messages; set STREAM_MAX_MSGS if that is wanted"
        );
        let (config, changes) = updated(by_default);
        assert_eq!(changes.len(), 1, "the suffixed subjects are added: {changes:?}");
        assert_eq!(subjects_of(&config).len(), 16, "and the plain ones stay");
        assert_eq!(config["max_msgs"], -1);

        let declared = plan(&desired(&[("STREAM_MAX_MSGS", "1000000")]), Some(&full), NEW);
        assert_eq!(declared.kept.len(), 2);
        let (config, _) = updated(declared);
        assert_eq!(config["max_msgs"], 1_000_000);
    }

    #[test]
    fn replicas_are_never_lowered_by_omission() {
        let mut three = existing(&[], 0);
        three.config.insert("num_replicas".into(), 3.into());
        assert_eq!(plan(&desired(&[]), Some(&three), NEW), NOTHING);
    }

    #[test]
    fn a_change_of_style_retires_our_old_subjects_and_leaves_foreign_ones() {
        let mut suffixed = existing(&[], 3);
        suffixed.config["subjects"].as_array_mut().unwrap().push("custom.>".into());
        let both = plan(&desired(&[("STREAM_SUBJECT_STYLE", "both")]), Some(&suffixed), NEW);
        let (config, _) = updated(both);
        assert_eq!(subjects_of(&config).len(), 17);
        let plain = plan(&desired(&[("STREAM_SUBJECT_STYLE", "plain")]), Some(&suffixed), NEW);
        let (config, changes) = updated(plain);
        let subjects = subjects_of(&config);
        assert_eq!(subjects.len(), 9);
        assert!(subjects.contains(&"custom.>".to_owned()) && !subjects.contains(&"trade-data.>".to_owned()));
        assert!(changes[0].effect.as_ref().unwrap().starts_with("stops capturing orderbook-data.>"));
    }
}
