//! NATS_EXTRA_CONFIG beside the settings, and in what nats-server says.

use super::RenderError;
use super::fragment::{Diversion, Fragment};
use crate::settings::{Settings, quote};

pub(super) fn refuse_ports_taken_twice(settings: &Settings, fragment: &Fragment) -> Result<(), RenderError> {
    let mut taken: Vec<(u16, String)> = settings.own_ports().map(|(name, port)| (port, name.to_owned())).collect();
    for listener in fragment.listeners() {
        if let Some((_, other)) = taken.iter().find(|(port, _)| *port == listener.port) {
            return Err(RenderError::Port { other: other.clone(), listener });
        }
        taken.push((listener.port, format!("{} in line {}", listener.kind, listener.line)));
    }
    Ok(())
}

/// What an operator should hear about NATS_EXTRA_CONFIG; nothing of one that cannot be used.
pub fn warnings(settings: &Settings) -> Vec<String> {
    let Some(extra) = settings.server.extra_config.as_ref().filter(|_| settings.external.is_none()) else {
        return vec![];
    };
    let Ok(fragment) = Fragment::read(&extra.text) else { return vec![] };
    let captured = settings.captured_subjects();
    let told = |diversion: Diversion| {
        let Diversion { line, subject, destination, stream, captured } = diversion;
        format!(
            "NATS_EXTRA_CONFIG maps {} to {} in line {line}: what is published there does not get to stream {stream}, which \
             captures {captured}; take the mapping out, or map to a subject that a stream captures",
            quote(subject),
            quote(&destination)
        )
    };
    fragment.diversions(&captured).into_iter().map(told).collect()
}

/// What nats-server says about a file with this text, with the fragment's own lines where it means those.
/// `name` is how it calls the file, and `shown` what it is called here.
pub fn located(answer: &str, name: &str, shown_as: &str, text: &str, settings: &Settings) -> String {
    let extra = settings.server.extra_config.as_ref();
    let fragment = extra.and_then(|extra| Some((&extra.path, Fragment::read(&extra.text).ok()?.lines())));
    let above = text.lines().position(|line| line == ABOVE_FRAGMENT).map(|position| position + 1);
    let place = |of_file: &str| -> Option<String> {
        let ((path, lines), above) = (fragment.as_ref()?, above?);
        let line: usize = of_file.split(':').next()?.parse().ok()?;
        let line = lines.get(line.checked_sub(above + 1)?)?;
        let rest = of_file.trim_start_matches(|c: char| c.is_ascii_digit() || c == ':');
        Some(format!("{}:{line}:{rest}", path.display()))
    };
    let mut parts = answer.split(name);
    let mut said = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.strip_prefix(':').and_then(place) {
            Some(placed) => said.push_str(&placed),
            None => said.extend([shown_as, part]),
        }
    }
    said
}

/// The line of nats.conf that a fragment follows.
const ABOVE_FRAGMENT: &str = "# From NATS_EXTRA_CONFIG:";

/// Whether what `nats-server -t` says are warnings alone: it fails for them, but starts and reloads with them.
pub fn are_warnings(answer: &str) -> bool {
    let mut lines = answer.lines().filter(|line| !line.trim().is_empty()).peekable();
    lines.peek().is_some() && lines.all(|line| line.contains(": invalid use of field \""))
}
