use std::fmt;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Flag,
    Environment,
    /// The environment, under an older name.
    Alias(&'static str),
    /// A file named by `NAME_FILE`.
    File(PathBuf),
    /// A line of the settings file: `settings.yml:12`.
    Line(String),
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => write!(f, "command line"),
            Self::Environment => write!(f, "environment"),
            Self::Alias(name) => write!(f, "environment ({name})"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Line(line) => write!(f, "file {line}"),
            Self::Default => write!(f, "default"),
        }
    }
}
