//! nats.conf and what it names, for a start and for a reload.

use std::path::{Path, PathBuf};

use super::start_error::StartError;
use crate::files::FileContent;
use crate::identity::Identity;
use crate::nats::Connectors;
use crate::nats_conf::{self, RenderContext, Secrets};
use crate::settings::{Problems, Settings};

/// A configuration, and how to reach a server that runs with it.
pub struct Rendered {
    /// nats.conf last: it names the others.
    pub files: Vec<FileContent>,
    pub connectors: Connectors,
    pub identity: Identity,
}

/// Reads files that the settings name, but writes none.
pub fn render(settings: &Settings, config_file: &Path, identity: Identity) -> Result<Rendered, StartError> {
    let directory = config_file.parent().unwrap_or(Path::new("/"));
    let identity = identity.completed(settings).map_err(anyhow::Error::from)?;
    let mut files = identity.files(settings, directory).map_err(anyhow::Error::from)?;
    let surroundings = RenderContext {
        host_name: host_name(),
        ca_bundle: identity.ca_bundle(settings, directory),
        service_users: identity.users().map_err(anyhow::Error::from)?,
    };
    let conf = nats_conf::render(settings, &surroundings, Secrets::Written).map_err(nats_conf_fault)?;
    files.push(FileContent::new(config_file.to_owned(), conf));
    let connectors = Connectors::new(settings, |role| identity.login(role, settings, directory));
    Ok(Rendered { files, connectors, identity })
}

/// What is wrong with a fragment is a problem of the settings; everything else is ours.
pub(super) fn nats_conf_fault(error: nats_conf::RenderError) -> StartError {
    match error.as_problem() {
        Some(problem) => StartError::Settings(Problems::from(vec![problem])),
        None => StartError::Internal(error.into()),
    }
}

/// The name of this machine, as other nodes of a cluster tell it apart by.
pub fn host_name() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Where nats-server finds a configuration that is to be checked.
pub fn candidate(config_file: &Path) -> PathBuf {
    let mut candidate = config_file.as_os_str().to_owned();
    candidate.push(".candidate");
    candidate.into()
}
