//! Streams: what should be ([`spec`]), what has to change ([`mod@plan`], pure), changing it ([`mod@apply`]).

pub mod account;
pub mod apply;
mod drift;
mod effect;
pub mod plan;
pub mod spec;
mod traced;

pub use apply::{Applied, ApplyError, apply, apply_one, unheard};
pub use drift::Drift;
pub use plan::{Action, Change, Conflict, ConsumerAction, ConsumerPlan, Existing, Plan, Remark, StreamPlan, plan};
pub use spec::{Desired, DesiredConsumer, DesiredStream};
