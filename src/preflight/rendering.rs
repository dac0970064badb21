//! nats.conf and what it names, for a start and for a reload.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::start_error::StartError;
use crate::files::FileContent;
use crate::nats::{Connector, IssuedCertificate, Own, OwnCertificate, ServiceUser};
use crate::nats_conf::{self, RenderContext, Secrets};
use crate::settings::{Authentication, Problems, Settings};

/// A configuration, and how to reach a server that runs with it.
pub struct Rendered {
    /// nats.conf last: it names the others.
    pub files: Vec<FileContent>,
    pub link: Connector,
    pub identity: Identity,
}

/// Whom we are known as to our own server; made once, where it is asked for.
#[derive(Clone, Default)]
pub struct Identity {
    pub user: Option<ServiceUser>,
    certificate: Option<IssuedCertificate>,
}

impl Identity {
    /// With what these settings ask for.
    fn completed(mut self, settings: &Settings) -> anyhow::Result<Self> {
        if self.user.is_none() && matches!(settings.authentication, Authentication::Users(_)) {
            self.user = Some(ServiceUser::make()?);
        }
        if self.certificate.is_none() && operator_ca(settings).is_some() {
            let issued = IssuedCertificate::issue();
            self.certificate = Some(issued.context("cannot make a client certificate for our own connection")?);
        }
        Ok(self)
    }
}

/// Reads files that the settings name, but writes none.
pub fn render(settings: &Settings, config_file: &Path, identity: Identity) -> Result<Rendered, StartError> {
    let (directory, port) = (config_file.parent().unwrap_or(Path::new("/")), settings.server.port);
    let identity = identity.completed(settings)?;
    let mut files: Vec<_> = identity.user.iter().map(|user| user.file(directory, port)).collect();
    let mut certificate = None;
    if let (Some(issued), Some(ca)) = (&identity.certificate, operator_ca(settings)) {
        let own = OwnCertificate::beside(directory, port);
        files.extend(own.files(issued, ca).with_context(|| format!("cannot read {}", ca.display()))?);
        certificate = Some(own);
    }
    let surroundings = RenderContext {
        host_name: host_name(),
        ca_bundle: certificate.as_ref().map(|own| own.bundle.clone()),
        own_user: identity.user.clone(),
    };
    let conf = nats_conf::render(settings, &surroundings, Secrets::Written).map_err(nats_conf_fault)?;
    files.push(FileContent::new(config_file.to_owned(), conf));
    let link = Connector::new(settings, Own { certificate, user: identity.user.clone() });
    Ok(Rendered { files, link, identity })
}

/// The authorities that clients are verified against, where they are.
fn operator_ca(settings: &Settings) -> Option<&Path> {
    settings.tls.as_ref().filter(|tls| tls.verify)?.ca.as_deref()
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
