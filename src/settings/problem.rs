use std::collections::BTreeMap;
use std::fmt;

use nix::errno::Errno;

use super::origin::Origin;

/// One thing that is wrong with the settings, told to the operator: what was found, the rule, the
/// way out. Values of secrets are redacted before they get here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The variable, or the variables that contradict each other.
    pub variable: String,
    /// What it holds, as shown to people.
    pub found: String,
    /// What is allowed, or which rule is broken.
    pub rule: String,
    /// What to do.
    pub remedy: String,
}

impl Problem {
    /// Whether nothing but the rights of who asks stands in the way: others may find it in order.
    pub(super) fn is_of_rights(&self) -> bool {
        // Reasons are the words of the system.
        self.rule.contains(Errno::EACCES.desc())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: cannot use {}: {}; {}", self.variable, self.found, self.rule, self.remedy)
    }
}

/// Everything that is wrong, found in one go.
#[derive(Debug, Default)]
pub struct Problems {
    pub list: Vec<Problem>,
    /// What else the operator should hear: a misspelt name may be the cause of a problem.
    pub warnings: Vec<String>,
}

impl From<Vec<Problem>> for Problems {
    fn from(list: Vec<Problem>) -> Self {
        Self { list, warnings: vec![] }
    }
}

impl Problems {
    pub fn add(
        &mut self,
        variable: impl Into<String>,
        found: impl Into<String>,
        rule: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.list.push(Problem {
            variable: variable.into(),
            found: found.into(),
            rule: rule.into(),
            remedy: remedy.into(),
        });
    }

    /// Says where variables stand that come from the settings file.
    pub(super) fn name_files(&mut self, origins: &BTreeMap<&'static str, Origin>) {
        for problem in &mut self.list {
            if let Some(Origin::Line(line)) = origins.get(problem.variable.as_str()) {
                problem.variable = format!("{} ({line})", problem.variable);
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.list.len() == 1 { "problem" } else { "problems" };
        write!(f, "the settings are invalid: {} {plural}", self.list.len())?;
        for problem in &self.list {
            write!(f, "\n  - {problem}")?;
        }
        for warning in &self.warnings {
            write!(f, "\nwarning: {warning}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A value as it appears in messages: quoted, control characters escaped, cut at 80 characters.
pub fn quote(value: &str) -> String {
    let short: String = value.chars().take(80).collect();
    let cut = if short.len() < value.len() { "…" } else { "" };
    format!("{short:?}{cut}")
}
