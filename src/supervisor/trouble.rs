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

const PRESUMED: &str = "not in service yet";

/// What is wrong, by who found it. Each concern is cleared by the one that raised it and no other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Troubles(BTreeMap<Concern, String>);

impl Troubles {
    pub fn raise(&mut self, concern: Concern, reason: String) {
        self.0.insert(concern, reason);
    }

    /// The server is not in service until somebody says so, if only because of what else is wrong.
    pub fn presume_out_of_service(&mut self) {
        self.0.entry(Concern::Service).or_insert_with(|| PRESUMED.to_owned());
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
        let mut troubles = Troubles::default();
        troubles.presume_out_of_service();
        assert_eq!(troubles.reason(), PRESUMED);
        troubles.raise(Concern::Integrity, "messages are missing".into());
        assert_eq!(troubles.reason(), "messages are missing");
        troubles.clear(Concern::Service);
        assert_eq!(troubles.reason(), "messages are missing");
        troubles.raise(Concern::Service, "no streams".into());
        troubles.presume_out_of_service();
        assert_eq!(troubles.reason(), "messages are missing; no streams");
    }
}
