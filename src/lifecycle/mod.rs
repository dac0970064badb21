//! One server from its launch to its stop: taking it into service, probing it, changing it in place,
//! looking after its messages, seeing it off. Each file is a task or two; they meet through handles.

mod api_port;
mod bring_up;
mod external_probe;
mod hand_over;
mod health_reports;
mod integrity_tasks;
mod last_words;
mod liveness_probe;
mod progress;
mod pulse;
mod reload;
pub mod signals;
mod timing;

pub use api_port::ApiPort;
pub use bring_up::BringUp;
pub use external_probe::probe as probe_external;
pub use hand_over::watch as watch_hand_over;
pub use health_reports::forward as forward_health_reports;
pub use integrity_tasks::{Connected, check_streams, hear_counted, keep_ledger, listen, read_through};
pub use last_words::located;
pub use liveness_probe::LivenessProbe;
pub use pulse::give as give_pulse;
pub use reload::{EmbeddedServer, Reload, ReloadFiles};
pub use signals::{LastCheck, Signals};
pub use timing::timing;
