/// What a connection of ours is for. Where a server of our own asks for users, each role is a user of
/// its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Provisioning, watching and the probes that write.
    Control,
    /// Publishing and consuming for clients of ours.
    Data,
    /// Taking snapshots of streams and restoring them.
    Backup,
}

impl Role {
    pub const ALL: [Self; 3] = [Self::Control, Self::Data, Self::Backup];

    /// The user of the role. Operators cannot name one like it.
    pub fn user(self) -> &'static str {
        match self {
            Self::Control => "_unified_nats",
            Self::Data => "_unified_nats_data",
            Self::Backup => "_unified_nats_backup",
        }
    }

    pub fn of_user(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.user() == name)
    }

    /// Where answers to its requests go: below what operators grant to clients that make requests, apart
    /// from the answers that others get, and all below one prefix, so that operators close them to their
    /// users with one subject.
    pub fn inbox(self) -> &'static str {
        match self {
            Self::Control => "_INBOX._unified_nats",
            Self::Data => "_INBOX._unified_nats.data",
            Self::Backup => "_INBOX._unified_nats.backup",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_told_apart_by_user_and_inbox() {
        for role in Role::ALL {
            assert_eq!(Role::of_user(role.user()), Some(role));
            assert!(Role::ALL.iter().filter(|other| other.inbox() == role.inbox()).count() == 1);
            let below_control = role.inbox().strip_prefix(Role::Control.inbox());
            assert!(below_control.is_some(), "{role:?}: the documented deny covers every inbox");
        }
        assert_eq!(Role::of_user("_unified_nats_"), None);
    }
}
