//! What follows from what the disk and the server say about writing. Pure.
//!
//! nats-server 2.14 and later never write to a stream again after one failed write, until they are
//! started again; 2.10 to 2.12 do by themselves once there is room (both measured). Neither tells its
//! clients when it is over. So a server that failed to write is trusted again after a write that was
//! acknowledged, and restarted where that fails though the disk has room.

use std::time::Duration;

use tokio::time::Instant;

/// The directory of the store as this process finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disk {
    /// Can be written, with so many bytes free.
    Writable { free: u64, total: u64 },
    /// Cannot be written, and why.
    Broken(String),
}

impl Disk {
    /// Enough for a server to start and to go on for a while.
    fn has_room(&self) -> bool {
        const ROOM: u64 = 8 << 20;
        matches!(self, Self::Writable { free, total } if *free >= ROOM.min(total / 16))
    }
}

/// What to do about the store now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    Nothing,
    /// Say that the store cannot be written, and wait.
    Report(String),
    /// Write for real: the only proof that it works again.
    Verify,
    /// Say so, and start the server again.
    Restart(String),
}

/// Remembers that a write failed, until one has succeeded.
#[derive(Debug, Default)]
pub struct StorageWatch {
    /// Why the store is not trusted.
    trouble: Option<String>,
    restarts: u32,
    restarted_at: Option<Instant>,
}

/// Two restarts though there was room all the time are that far apart; doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LAST_PAUSE: Duration = Duration::from_secs(300);
/// After so long the next restart is the first again.
const FORGIVEN: Duration = Duration::from_secs(1800);

impl StorageWatch {
    /// What the server printed about a write that failed.
    pub fn note(&mut self, message: &str) {
        self.trouble.get_or_insert_with(|| message.to_owned());
    }

    pub fn is_in_trouble(&self) -> bool {
        self.trouble.is_some()
    }

    /// `refuses` is what a server says that writes no more.
    pub fn judge(&mut self, disk: &Disk, refuses: Option<&str>, now: Instant) -> Remedy {
        if let Some(refusal) = refuses {
            self.trouble = Some(refusal.to_owned());
        }
        if let Disk::Broken(reason) = disk {
            let reason = format!("the store cannot be written: {reason}");
            self.trouble = Some(reason.clone());
            // That explains it: a restart that follows is for a reason of its own.
            self.restarts = 0;
            return Remedy::Report(reason);
        }
        let Some(trouble) = self.trouble.clone() else { return Remedy::Nothing };
        if !disk.has_room() {
            self.restarts = 0;
            return Remedy::Report(format!("{trouble}; there is hardly any room on the disk"));
        }
        if refuses.is_none() {
            return Remedy::Verify;
        }
        self.restart(trouble, now)
    }

    /// The write that was to verify failed, or succeeded.
    pub fn verified(&mut self, outcome: Result<(), String>, now: Instant) -> Remedy {
        match outcome {
            Ok(()) => {
                self.trouble = None;
                Remedy::Nothing
            }
            Err(reason) => self.restart(format!("writing fails though the disk has room: {reason}"), now),
        }
    }

    fn restart(&mut self, reason: String, now: Instant) -> Remedy {
        if let Some(at) = self.restarted_at {
            if now - at >= FORGIVEN {
                self.restarts = 0;
            }
            // Also after a disk that was full in between: it may hover at its limit.
            let pause = FIRST_PAUSE.saturating_mul(1 << self.restarts.saturating_sub(1).min(10)).min(LAST_PAUSE);
            if now - at < pause {
                return Remedy::Report(reason);
            }
        }
        self.restarts += 1;
        self.restarted_at = Some(now);
        Remedy::Restart(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn room() -> Disk {
        Disk::Writable { free: 20 * MIB, total: 48 * MIB }
    }

    fn full() -> Disk {
        Disk::Broken("it is full".into())
    }

    fn names(remedy: &Remedy, part: &str) -> bool {
        matches!(remedy, Remedy::Report(reason) if reason.contains(part))
    }

    #[test]
    fn without_trouble_nothing_is_done() {
        assert_eq!(StorageWatch::default().judge(&room(), None, Instant::now()), Remedy::Nothing);
    }

    #[test]
    fn a_full_disk_is_told_and_never_restarts_the_server() {
        let mut watch = StorageWatch::default();
        let start = Instant::now();
        for second in 0..1000 {
            let remedy = watch.judge(&full(), Some("write error"), start + Duration::from_secs(second));
            assert!(names(&remedy, "it is full"), "{remedy:?}");
        }
        let nearly = Disk::Writable { free: MIB, total: 48 * MIB };
        assert!(names(&watch.judge(&nearly, Some("write error"), start), "hardly any room"));
    }

    #[test]
    fn once_there_is_room_a_server_that_refuses_is_restarted_and_then_verified() {
        let mut watch = StorageWatch::default();
        let now = Instant::now();
        watch.judge(&full(), Some("write error"), now);
        assert!(matches!(watch.judge(&room(), Some("write error"), now), Remedy::Restart(_)));
        assert_eq!(watch.judge(&room(), None, now), Remedy::Verify);
        assert_eq!(watch.verified(Ok(()), now), Remedy::Nothing);
        assert_eq!(watch.judge(&room(), None, now), Remedy::Nothing);
    }

    #[test]
    fn a_disk_that_fills_again_and_again_is_healed_as_fast_each_time() {
        let mut watch = StorageWatch::default();
        let start = Instant::now();
        for second in (0..600).step_by(10) {
            let now = start + Duration::from_secs(second);
            watch.judge(&full(), Some("write error"), now);
            assert!(matches!(watch.judge(&room(), Some("write error"), now), Remedy::Restart(_)), "{second}");
            assert_eq!(watch.judge(&room(), None, now), Remedy::Verify);
            assert_eq!(watch.verified(Ok(()), now), Remedy::Nothing);
        }
    }

    #[test]
    fn a_disk_that_hovers_at_its_limit_does_not_restart_the_server_all_the_time() {
        let mut watch = StorageWatch::default();
        let start = Instant::now();
        let restarts = (0..60).filter(|second| {
            let now = start + Duration::from_secs(*second);
            watch.judge(&full(), Some("write error"), now);
            matches!(watch.judge(&room(), Some("write error"), now), Remedy::Restart(_))
        });
        assert_eq!(restarts.count(), 12);
    }

    #[test]
    fn a_server_that_heals_by_itself_is_not_restarted() {
        let mut watch = StorageWatch::default();
        let now = Instant::now();
        watch.note("no space left on device");
        assert!(watch.is_in_trouble());
        assert_eq!(watch.judge(&room(), None, now), Remedy::Verify);
        assert_eq!(watch.verified(Ok(()), now), Remedy::Nothing);
        assert!(!watch.is_in_trouble());
    }

    #[test]
    fn what_a_restart_does_not_mend_is_restarted_ever_more_rarely() {
        let mut watch = StorageWatch::default();
        let start = Instant::now();
        watch.note("quota");
        let restarts: Vec<_> = (0..3600)
            .filter(|second| {
                let now = start + Duration::from_secs(*second);
                assert_eq!(watch.judge(&room(), None, now), Remedy::Verify);
                matches!(watch.verified(Err("no answer".into()), now), Remedy::Restart(_))
            })
            .collect();
        assert_eq!(restarts[..6], [0, 5, 15, 35, 75, 155]);
        assert!(restarts.windows(2).skip(7).all(|pair| pair[1] - pair[0] == 300), "{restarts:?}");
    }
}
