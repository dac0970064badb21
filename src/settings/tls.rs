//! TLS for clients: the files are read and checked at start, because nats-server would only say
//! that something is wrong with them after it was spawned.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;

use super::Purpose;
use super::certificates::{self, Part, Role};
use super::reader::Reader;
use super::variables::*;

#[derive(Clone, Debug)]
pub struct TlsSettings {
    pub cert: PathBuf,
    pub key: PathBuf,
    pub ca: Option<PathBuf>,
    /// Clients must show a certificate of an authority in `ca`.
    pub verify: bool,
    /// The server's own certificate, which our own connections expect to meet.
    pub leaf: CertificateDer<'static>,
}

impl TlsSettings {
    /// [`None`] when TLS is off or its settings have problems. Who only talks to the broker, or shows settings, needs neither
    /// its key nor its authorities.
    pub fn read(reader: &mut Reader, purpose: Purpose) -> Option<Self> {
        let enabled = reader.bool(&NATS_TLS_ENABLED);
        let verify = reader.bool(&NATS_TLS_VERIFY);
        let cert = reader.readable_file(&NATS_TLS_CERT);
        let [key, ca] = [&NATS_TLS_KEY, &NATS_TLS_CA].map(|variable| match purpose {
            Purpose::Run => reader.readable_file(variable),
            Purpose::Talk | Purpose::Show => reader.path(variable),
        });
        if !enabled {
            if verify {
                reader.refuse(&NATS_TLS_VERIFY, "NATS_TLS_ENABLED is false");
            } else if cert.is_some() || key.is_some() {
                reader.warnings.push(
                    "NATS_TLS_CERT or NATS_TLS_KEY is set, but NATS_TLS_ENABLED is false: connections are not \
                     encrypted; set NATS_TLS_ENABLED=true"
                        .into(),
                );
            }
            return None;
        }
        for variable in [&NATS_TLS_CERT, &NATS_TLS_KEY] {
            if !reader.is_set(variable) {
                reader.problems.add(
                    variable.name,
                    "nothing",
                    "NATS_TLS_ENABLED=true needs NATS_TLS_CERT and NATS_TLS_KEY",
                    "name the PEM file, or set NATS_TLS_ENABLED=false",
                );
            }
        }
        if verify && !reader.is_set(&NATS_TLS_CA) {
            reader.refuse(&NATS_TLS_VERIFY, "NATS_TLS_CA is not set");
        }
        if purpose == Purpose::Run {
            check_authorities(reader, ca.as_ref());
        }
        let (cert, key) = (cert?, key?);
        let leaf = match purpose {
            Purpose::Run => check_pair(reader, [&NATS_TLS_CERT, &NATS_TLS_KEY], &cert, &key, Role::Server)?,
            Purpose::Talk | Purpose::Show => match certificates::chain(&cert, Role::Server, SystemTime::now()) {
                Ok(chain) => chain.leaf,
                Err(reason) => {
                    reader.refuse(&NATS_TLS_CERT, &reason);
                    return None;
                }
            },
        };
        Some(Self { cert, key, ca, verify, leaf })
    }
}

/// Refuses authorities that vouch for nobody.
pub fn check_authorities(reader: &mut Reader, path: Option<&PathBuf>) {
    let Some(path) = path else { return };
    match certificates::authorities(path, SystemTime::now()) {
        Ok(warnings) => reader.warnings.extend(warnings),
        Err(reason) => reader.refuse(&NATS_TLS_CA, &reason),
    }
}

/// The certificate of a pair that can be used.
pub fn check_pair(
    reader: &mut Reader,
    variables: [&Variable; 2],
    cert: &Path,
    key: &Path,
    role: Role,
) -> Option<CertificateDer<'static>> {
    match certificates::pair(cert, key, role, SystemTime::now()) {
        Ok(chain) => {
            reader.warnings.extend(chain.warnings);
            Some(chain.leaf)
        }
        Err((part, reason)) => {
            reader.refuse(variables[usize::from(part == Part::Key)], &reason);
            None
        }
    }
}
