//! Who we are to nats-server.
//!
//! The operator's users may have any rights, and passwords that only they know. So each of our roles is
//! a service user: a user of its own with a password made at each start, its own prefix for answers, and
//! the rights that its work takes. nats-server holds them as far as it can hold users at all:
//!
//! | who gets in | our roles connect | what restricts them |
//! |---|---|---|
//! | users: NATS_AUTH_USERNAME, NATS_USERS_FILE, `users:` | as service users | their rights, in nats.conf |
//! | NATS_AUTH_TOKEN | with the token | nothing: nats-server takes no users beside a token |
//! | anybody | without credentials | nothing: users in nats.conf would shut out who shows none, or others |
//! | an external server | with the credentials of the settings | what its operator grants to them |
//!
//! NATS_TLS_VERIFY comes on top: then all roles show the one certificate that is issued here, which
//! names no user. Subjects are all that is restricted: who may create a consumer or take a snapshot names
//! the subject that nats-server delivers to.

mod certificate;
mod rights;
mod service_users;

use std::io;
use std::path::{Path, PathBuf};

use certificate::{IssuedCertificate, OwnCertificate};
use service_users::{NoRandomness, ServiceUsers};

use crate::domain::{Role, SubjectError};
use crate::files::FileContent;
use crate::nats::Login;
use crate::settings::{Authentication, Credentials, Password, Settings, User};

/// What we are known by to a server of our own; made once, where it is asked for.
#[derive(Clone, Default)]
pub struct Identity {
    users: Option<ServiceUsers>,
    certificate: Option<IssuedCertificate>,
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error(transparent)]
    Password(#[from] NoRandomness),
    #[error("cannot make a client certificate for our own connections")]
    Certificate(#[from] rcgen::Error),
    #[error("cannot read {}", .0.display())]
    Authorities(PathBuf, #[source] io::Error),
    #[error("cannot write down the rights of our own users")]
    Rights(#[from] SubjectError),
}

impl Identity {
    /// With what these settings ask for.
    pub fn completed(mut self, settings: &Settings) -> Result<Self, IdentityError> {
        if self.users.is_none() && matches!(settings.authentication, Authentication::Users(_)) {
            self.users = Some(ServiceUsers::make()?);
        }
        if self.certificate.is_none() && operator_ca(settings).is_some() {
            self.certificate = Some(IssuedCertificate::issue()?);
        }
        Ok(self)
    }

    /// For nats.conf, in plain text.
    pub fn users(&self) -> Result<Vec<User>, IdentityError> {
        Ok(self.users.as_ref().map_or(Ok(vec![]), ServiceUsers::users)?)
    }

    /// What is to lie beside nats.conf, in `directory`. Reads the operator's authorities as they are now.
    pub fn files(&self, settings: &Settings, directory: &Path) -> Result<Vec<FileContent>, IdentityError> {
        let port = settings.server.port;
        let mut files: Vec<_> = self.users.iter().map(|users| users.file(directory, port)).collect();
        if let (Some(issued), Some(ca)) = (&self.certificate, operator_ca(settings)) {
            let own = OwnCertificate::beside(directory, port);
            files.extend(own.files(issued, ca).map_err(|error| IdentityError::Authorities(ca.to_owned(), error))?);
        }
        Ok(files)
    }

    /// What stands in for NATS_TLS_CA: the operator's authorities and the one that signed our certificate.
    pub fn ca_bundle(&self, settings: &Settings, directory: &Path) -> Option<PathBuf> {
        self.own_certificate(settings, directory).map(|own| own.bundle)
    }

    /// How that role logs in to the server of the settings, whose nats.conf lies in `directory`.
    pub fn login(&self, role: Role, settings: &Settings, directory: &Path) -> Login {
        let login = match (&settings.authentication, &self.users) {
            (Authentication::Users(_), Some(users)) => {
                Login { credentials: Some(users.credentials(role)), certificate: None, inbox: role.inbox().to_owned() }
            }
            _ => login_as_operator(settings),
        };
        Login { certificate: self.own_certificate(settings, directory).map(OwnCertificate::shown), ..login }
    }

    fn own_certificate(&self, settings: &Settings, directory: &Path) -> Option<OwnCertificate> {
        let asked_for = self.certificate.is_some() && operator_ca(settings).is_some();
        asked_for.then(|| OwnCertificate::beside(directory, settings.server.port))
    }
}

/// How all roles log in where they are no users, as to a server that others run. Answers go below what
/// every operator grants to clients that make requests.
pub fn login_as_operator(settings: &Settings) -> Login {
    Login { credentials: of_operator(settings), certificate: None, inbox: Role::Control.inbox().to_owned() }
}

/// How a command logs in: as the control of the running broker, as far as it may read what lies beside
/// that broker's nats.conf, in one of these directories.
pub fn login_of_commands(settings: &Settings, directories: &[&Path]) -> Login {
    let port = settings.server.port;
    let asks_for_certificates = settings.tls.as_ref().is_some_and(|tls| tls.verify);
    let certificates = directories.iter().map(|directory| OwnCertificate::beside(directory, port));
    let certificate = certificates.filter(|_| asks_for_certificates).find(|own| own.cert.is_file());
    let asks_for_users = matches!(settings.authentication, Authentication::Users(_));
    let control = || directories.iter().find_map(|directory| service_users::control_beside(directory, port));
    // Or else the broker runs elsewhere, or as another user.
    let login = login_as_operator(settings);
    let credentials = asks_for_users.then(control).flatten().or(login.credentials);
    Login { credentials, certificate: certificate.map(OwnCertificate::shown), inbox: login.inbox }
}

/// Whether a file of that name beside nats.conf is one of ours.
pub fn is_file(name: &str) -> bool {
    service_users::is_file(name) || OwnCertificate::is_file(name)
}

/// The authorities that clients are verified against, where they are.
fn operator_ca(settings: &Settings) -> Option<&Path> {
    settings.tls.as_ref().filter(|tls| tls.verify)?.ca.as_deref()
}

/// What the settings themselves let somebody in with who may do everything.
fn of_operator(settings: &Settings) -> Option<Credentials> {
    match &settings.authentication {
        Authentication::Open => None,
        Authentication::Token(token) => Some(Credentials::Token(token.clone())),
        Authentication::Users(users) => {
            users.iter().filter(|user| user.permissions.is_none()).find_map(|user| match &user.password {
                Password::Plain(password) => {
                    Some(Credentials::User { name: user.name.clone(), password: password.clone() })
                }
                Password::Hash(_) | Password::Nkey => None,
            })
        }
    }
}

#[cfg(test)]
mod tests;
