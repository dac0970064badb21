//! Whether the store still holds what it held: never healthy with messages missing.
//!
//! nats-server reports none of this by itself: after a block file was damaged it serves what is
//! left, and `/healthz` answers 200 (measured on 2.10 to 2.15). So what each stream was seen to hold
//! is kept beside the store ([`baselines`]), compared with what it holds now ([`IntegrityHandle::check_streams`]), and after
//! each start every stream is read through once ([`mod@read_through`]), because a message that was
//! damaged in place is still counted. What is missing stays told until an operator acknowledges it.
//!
//! Fewer messages than before are no proof: clients delete, purge and replace, up to the moment of a
//! kill, and limits take what is old. A loss is what only damage explains: a last sequence that went
//! backwards, a message that is counted and cannot be read, what the server itself found damaged, a
//! block that changed while no server ran ([`inventory`]), and fewer messages in a stream whose files
//! were touched then: of what a server left in order, by its own count before ([`mod@index`]) and after.

pub mod acknowledgement;
pub mod baselines;
mod commands;
mod deletions;
mod handle;
mod index;
pub mod inventory;
mod ledger;
mod losses;
mod monitor;
mod ranges;
mod read_through;
mod recover_streams;
mod restores;
mod sign_of_life;
mod suspected_losses;
mod view;

pub use baselines::StreamBaseline;
pub use handle::{IntegrityHandle, LookError};
pub use ledger::IntegrityLedger;
pub use losses::{Loss, LossKind};
pub use monitor::IntegrityMonitor;
pub use recover_streams::StreamRecovery;
pub use sign_of_life::SignOfLife;
pub use view::{Integrity, Reading, Restored};
