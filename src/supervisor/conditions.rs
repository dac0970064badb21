use std::collections::BTreeMap;

use crate::errors::in_one_sentence;

/// Who finds that something promised does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionKind {
    /// Messages are missing from the store.
    Integrity,
    /// The store cannot be written.
    Storage,
    /// The server does not answer.
    Answers,
    /// The server is not in service: not connected to, or its streams are not in place.
    Service,
    /// The periodic health check.
    HealthCheck,
}

impl ConditionKind {
    /// The gravest first.
    pub const ALL: [Self; 5] = [Self::Integrity, Self::Storage, Self::Answers, Self::Service, Self::HealthCheck];

    /// Whether another server on the same store fails it as well until the opposite is shown.
    const fn outlives_the_server(self) -> bool {
        matches!(self, Self::Integrity | Self::Storage)
    }
}

const PRESUMED: &str = "not in service yet";

/// What is wrong, by who found it. Each kind is cleared by the one that raised it and no other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions(BTreeMap<ConditionKind, String>);

impl Conditions {
    pub fn set(&mut self, kind: ConditionKind, reason: String) {
        self.0.insert(kind, reason);
    }

    /// The server is not in service until somebody says so, if only because of what else is wrong.
    pub fn presume_out_of_service(&mut self) {
        self.0.entry(ConditionKind::Service).or_insert_with(|| PRESUMED.to_owned());
    }

    pub fn clear(&mut self, kind: ConditionKind) {
        self.0.remove(&kind);
    }

    /// Forgets what was wrong with a server that is gone.
    pub fn forget_server(&mut self) {
        self.0.retain(|kind, _| kind.outlives_the_server());
    }

    /// Why a condition failed.
    pub fn of(&self, kind: ConditionKind) -> Option<&str> {
        self.0.get(&kind).map(String::as_str)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All reasons in one sentence, the gravest first. What is only presumed is none where there is another:
    /// the sentence stays the same when the server comes into service.
    pub fn reason(&self) -> String {
        let presumed = |reason: &&str| self.0.len() > 1 && *reason == PRESUMED;
        in_one_sentence(self.0.values().map(String::as_str).filter(|reason| !presumed(reason)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_presumed_is_no_reason_beside_another() {
        let mut conditions = Conditions::default();
        conditions.presume_out_of_service();
        assert_eq!(conditions.reason(), PRESUMED);
        conditions.set(ConditionKind::Integrity, "messages are missing".into());
        assert_eq!(conditions.reason(), "messages are missing");
        conditions.clear(ConditionKind::Service);
        assert_eq!(conditions.reason(), "messages are missing");
        conditions.set(ConditionKind::Service, "no streams".into());
        conditions.presume_out_of_service();
        assert_eq!(conditions.reason(), "messages are missing; no streams");
    }
}
