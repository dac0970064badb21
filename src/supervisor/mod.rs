//! The nats-server child.
//!
//! One task owns it ([`task`]). Everybody else holds a [`Handle`]: it sends what happened elsewhere
//! (the server answers, the streams are in place, somebody wants to stop) and watches the state.
//! What follows from what is decided by two pure parts, the transition function in [`transitions`] and
//! the restart policy in [`policy`]; the task only carries out the actions they name.
//!
//! Exit statuses are collected by one [`Reaper`] for the whole process, so that adopted orphans are
//! buried and the child's own status reaches its owner.

mod child;
mod conditions;
mod disk_work;
mod events;
mod executable;
mod external;
mod handle;
mod log_file;
mod output;
mod policy;
mod preparation;
mod reaper;
mod restarts;
mod server_output;
mod state;
mod state_log;
mod task;
mod transitions;
mod wake_ups;

pub use child::{Condition, Launch, Launched, NatsServer};
pub use conditions::{ConditionKind, Conditions};
pub use events::{Cause, Failure, RestartReason};
pub use executable::{Executable, ExecutableError, Version};
pub use external::External;
pub use handle::{Handle, Installed, Snapshot, Transition};
pub use log_file::LogFile;
pub use output::{Lines, Notice, Piece, Recent, ServerLine, names_storage_fault};
pub use policy::{Decision, RestartPolicy};
pub use preparation::{ConfigFiles, Hindrance, Work};
pub use reaper::{Exit, Reaper};
pub use restarts::Restarts;
pub use state::State;
pub use task::{Ending, Supervisor, Timing};
