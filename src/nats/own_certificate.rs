//! Our own client certificate, for servers that ask for one.
//!
//! The operator's authority cannot sign for us, and the server's certificate is often good for
//! servers only. So an authority made at each start signs one client certificate and is forgotten;
//! the bundle that nats-server verifies against is the operator's with ours appended.

use std::io;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use crate::files::write_atomically;

/// Files of the certificate, beside nats.conf.
#[derive(Clone, Debug)]
pub struct OwnCertificate {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// The operator's authorities and ours.
    pub bundle: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum OwnCertificateError {
    #[error("cannot make a client certificate for our own connection")]
    Generate(#[from] rcgen::Error),
    #[error("cannot write the client certificate for our own connection")]
    Write(#[from] io::Error),
}

impl OwnCertificate {
    /// Where the files are when nats.conf lies in `directory`. Brokers may share one, but no `port`.
    pub fn beside(directory: &Path, port: NonZeroU16) -> Self {
        Self {
            cert: directory.join(format!("client-{port}.crt")),
            key: directory.join(format!("client-{port}.key")),
            bundle: directory.join(format!("client-ca-{port}.pem")),
        }
    }

    /// Makes a new certificate and writes the files, mode 0600.
    pub fn renew(&self, operator_ca: &Path) -> Result<(), OwnCertificateError> {
        let mut authority = CertificateParams::default();
        authority.distinguished_name.push(DnType::CommonName, "unified-nats own connection");
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let authority_key = KeyPair::generate()?;
        let authority_cert = authority.self_signed(&authority_key)?;

        let mut client = CertificateParams::default();
        client.distinguished_name.push(DnType::CommonName, "unified-nats");
        client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let client_key = KeyPair::generate()?;
        let client_cert = client.signed_by(&client_key, &Issuer::new(authority, authority_key))?;

        let mut bundle = std::fs::read(operator_ca)?;
        bundle.push(b'\n');
        bundle.extend_from_slice(authority_cert.pem().as_bytes());
        write_atomically(&self.bundle, &bundle)?;
        write_atomically(&self.key, client_key.serialize_pem().as_bytes())?;
        write_atomically(&self.cert, client_cert.pem().as_bytes())?;
        Ok(())
    }
}
