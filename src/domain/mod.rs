//! Small value types without I/O. A value that exists is a valid one.

mod age_recipient;
mod byte_size;
mod data_type;
mod generation;
mod names;
mod overlaps;
mod ratio;
mod role;
mod secret;
mod server_version;
mod subject;
mod time_span;

pub use age_recipient::AgeRecipient;
pub use byte_size::ByteSize;
pub use data_type::{DataType, SubjectStyle};
pub use generation::Generation;
pub use names::{NameError, ServerName, StreamName};
pub use overlaps::{Claim, Overlaps};
pub use ratio::Ratio;
pub use role::Role;
pub use secret::Secret;
pub use server_version::{OLDEST_SERVER, ServerVersion};
pub use subject::{Subject, SubjectError};
pub use time_span::{format_span, parse_span};
