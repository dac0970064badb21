//! A sign of life in the store, several times a second: what changes there later than the last one
//! changed while no server ran (see [`inventory`]).

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};

use super::inventory;
use crate::files::HeldDirectory;

/// Gives it until it is dropped.
pub struct SignOfLife(#[expect(dead_code, reason = "the thread ends when it is dropped")] Sender<()>);

impl SignOfLife {
    /// From a thread of its own: a disk may stall, and a broker that idles wakes nobody else for it.
    pub fn give(directory: Arc<HeldDirectory>) -> io::Result<Self> {
        let (end, ended) = channel::<()>();
        let beat = move || {
            while ended.recv_timeout(inventory::BEAT) == Err(RecvTimeoutError::Timeout) {
                inventory::beat(directory.in_hand().as_ref());
            }
        };
        std::thread::Builder::new().name("sign-of-life".into()).stack_size(128 << 10).spawn(beat)?;
        Ok(Self(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::time::{Duration, Instant};

    #[test]
    fn it_is_given_again_and_again_until_it_is_dropped() {
        let store = tempfile::tempdir().unwrap();
        let directory = Arc::new(HeldDirectory::hold(store.path().to_owned()));
        let sign = SignOfLife::give(directory.clone()).unwrap();
        let has_beaten = || fs::read_dir(store.path()).unwrap().count() == 1;
        let deadline = Instant::now() + Duration::from_secs(20);
        for _ in 0..2 {
            while !has_beaten() {
                assert!(Instant::now() < deadline, "no sign");
                std::thread::yield_now();
            }
            let sign = fs::read_dir(store.path()).unwrap().next().unwrap().unwrap().path();
            fs::remove_file(sign).unwrap();
        }
        drop(sign);
        // The thread lets go of the directory.
        while Arc::strong_count(&directory) > 1 {
            assert!(Instant::now() < deadline, "it goes on");
            std::thread::yield_now();
        }
    }
}
