use std::collections::BTreeMap;

use crate::errors::in_one_sentence;

/// Who finds that something promised does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Concern {
    /// Messages are missing from the store.
    Integrity,
    /// The store cannot be written.
    Storage,
    /// The server does not answer.
    Answers,
    /// The server is not in service: not connected to, or its streams are not in place.
    Service,
    /// The periodic full examination.
    Examination,
}

impl Concern {
    /// The gravest first.
    pub const ALL: [Self; 5] = [Self::Integrity, Self::Storage, Self::Answers, Self::Service, Self::Examination];

    /// Whether another server on the same store has the same trouble until the opposite is shown.
    const fn outlives_the_server(self) -> bool {
        matches!(self, Self::Integrity | Self::Storage)
    }
}

/// What is wrong, by who found it. Each concern is cleared by the one that raised it and no other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Troubles(BTreeMap<Concern, String>);

impl Troubles {
    pub fn raise(&mut self, concern: Concern, reason: String) {
        self.0.insert(concern, reason);
    }

    /// Raises a concern unless it is raised already.
    pub fn presume(&mut self, concern: Concern, reason: &str) {
        self.0.entry(concern).or_insert_with(|| reason.to_owned());
    }

    pub fn clear(&mut self, concern: Concern) {
        self.0.remove(&concern);
    }

    /// Forgets what was wrong with a server that is gone.
    pub fn forget_server(&mut self) {
        self.0.retain(|concern, _| concern.outlives_the_server());
    }

    /// Why what is the concern's does not hold.
    pub fn of(&self, concern: Concern) -> Option<&str> {
        self.0.get(&concern).map(String::as_str)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All reasons in one sentence, the gravest first.
    pub fn reason(&self) -> String {
        in_one_sentence(self.0.values().map(String::as_str))
    }
}
