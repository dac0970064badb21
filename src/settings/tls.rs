//! TLS for clients: the files are read and checked at start, because nats-server would only say
//! that something is wrong with them after it was spawned.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

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
    pub not_after: SystemTime,
}

const EXPIRY_WARNING: Duration = Duration::from_secs(14 * 24 * 3600);

impl TlsSettings {
    /// [`None`] when TLS is off or its settings have problems.
    pub fn read(reader: &mut Reader) -> Option<Self> {
        let enabled = reader.bool(&NATS_TLS_ENABLED);
        let verify = reader.bool(&NATS_TLS_VERIFY);
        let [cert, key, ca] = [&NATS_TLS_CERT, &NATS_TLS_KEY, &NATS_TLS_CA].map(|v| reader.readable_file(v));
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
        if let Some(ca) = &ca
            && let Err(reason) = read_certificates(ca)
        {
            reader.refuse(&NATS_TLS_CA, &reason);
        }
        let (cert, key) = (cert?, key?);
        let chain = or_refuse(reader, &NATS_TLS_CERT, read_certificates(&cert).and_then(checked_chain))?;
        let private = PrivateKeyDer::from_pem_file(&key).map_err(|_| "it holds no private key in PEM form".to_owned());
        let private = or_refuse(reader, &NATS_TLS_KEY, private)?;
        or_refuse(reader, &NATS_TLS_KEY, check_pair(&chain, private))?;
        let not_after = or_refuse(reader, &NATS_TLS_CERT, check_dates(&chain[0], SystemTime::now()))?;
        if let Ok(left) = not_after.duration_since(SystemTime::now())
            && left < EXPIRY_WARNING
        {
            reader.warnings.push(format!(
                "the certificate in {} expires in {} days: replace it",
                cert.display(),
                left.as_secs() / 86400
            ));
        }
        let leaf = chain.into_iter().next()?;
        Some(Self { cert, key, ca, verify, leaf, not_after })
    }
}

fn or_refuse<T>(reader: &mut Reader, variable: &Variable, result: Result<T, String>) -> Option<T> {
    result.map_err(|reason| reader.refuse(variable, &reason)).ok()
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = match CertificateDer::pem_file_iter(path) {
        Ok(iter) => iter.collect(),
        Err(error) => Err(error),
    };
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err("it holds no certificate in PEM form".into()),
    }
}

fn parsed<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    let (_, certificate) =
        X509Certificate::from_der(certificate).map_err(|_| "it holds a certificate that cannot be read".to_owned())?;
    Ok(certificate)
}

/// Each certificate must be signed by the one after it.
fn checked_chain(chain: Vec<CertificateDer<'static>>) -> Result<Vec<CertificateDer<'static>>, String> {
    for pair in chain.windows(2) {
        let issuer = parsed(&pair[1])?;
        if parsed(&pair[0])?.verify_signature(Some(issuer.public_key())).is_err() {
            return Err("its chain is broken: a certificate is not signed by the one after it".into());
        }
    }
    Ok(chain)
}

fn check_pair(chain: &[CertificateDer<'static>], key: PrivateKeyDer<'static>) -> Result<(), String> {
    let provider = rustls::crypto::ring::default_provider();
    rustls::sign::CertifiedKey::from_der(chain.to_vec(), key, &provider).map(drop).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => "it does not belong to the certificate in NATS_TLS_CERT".into(),
        rustls::Error::InvalidCertificate(_) => {
            "the certificate in NATS_TLS_CERT is not of X.509 version 3: issue it with a subjectAltName".into()
        }
        other => format!("the pair cannot be used: {other}"),
    })
}

fn check_dates(certificate: &CertificateDer<'_>, now: SystemTime) -> Result<SystemTime, String> {
    let certificate = parsed(certificate)?;
    let validity = certificate.validity();
    let at = |seconds: i64| UNIX_EPOCH + Duration::from_secs(seconds.max(0) as u64);
    let (not_before, not_after) = (at(validity.not_before.timestamp()), at(validity.not_after.timestamp()));
    if now < not_before {
        return Err(format!("its certificate is not valid before {}", humantime::format_rfc3339_seconds(not_before)));
    }
    if now >= not_after {
        return Err(format!("its certificate expired at {}", humantime::format_rfc3339_seconds(not_after)));
    }
    Ok(not_after)
}
