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

    /// Where answers to the user's requests go, apart from those that others get. Those of control lie below
    /// what operators grant to clients that make requests, and can be denied to others there. Messages of
    /// streams cannot: nats-server compares a denial with the subject that they were stored under (measured on
    /// 2.10 to 2.15). So what data and backup get lies apart from everything that is commonly granted.
    pub fn inbox(self) -> &'static str {
        match self {
            Self::Control => "_INBOX._unified_nats",
            Self::Data => "_unified_nats_data",
            Self::Backup => "_unified_nats_backup",
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
            let hears = |other: &&Role| format!("{}.x", other.inbox()).starts_with(&format!("{}.", role.inbox()));
            assert_eq!(Role::ALL.iter().filter(hears).collect::<Vec<_>>(), [&role]);
        }
        assert_eq!(Role::of_user("_unified_nats_"), None);
    }
}
