use std::time::SystemTime;

/// What repairing drift has come to since the program started.
#[derive(Clone, Debug, Default)]
pub struct Drift {
    /// Changes that were made to streams and consumers that somebody had changed.
    pub repaired: u64,
    /// The last of them, and when it was made.
    pub last: Option<(SystemTime, String)>,
    /// What differs from what is declared and cannot be repaired.
    pub remaining: Vec<String>,
    /// Why drift is not looked after just now.
    pub suspended: Option<String>,
}
