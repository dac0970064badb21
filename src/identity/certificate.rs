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

use crate::domain::Secret;
use crate::files::FileContent;
use crate::settings::ClientCertificate;

/// Files of the certificate, beside nats.conf.
#[derive(Clone, Debug)]
pub struct OwnCertificate {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// The operator's authorities and ours.
    pub bundle: PathBuf,
}

/// The certificate itself, and the authority that vouches for it.
#[derive(Clone, Debug)]
pub struct IssuedCertificate {
    authority: String,
    cert: String,
    key: Secret,
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

    /// What of it is shown to the server.
    pub fn shown(self) -> ClientCertificate {
        ClientCertificate { cert: self.cert, key: self.key }
    }

    /// Whether a file of that name is one of these.
    pub fn is_file(name: &str) -> bool {
        name.starts_with("client-") && [".crt", ".key", ".pem"].iter().any(|suffix| name.ends_with(suffix))
    }

    /// What the files are to hold, beside the operator's authorities as they are now.
    pub fn files(&self, issued: &IssuedCertificate, operator_ca: &Path) -> io::Result<[FileContent; 3]> {
        let mut bundle = std::fs::read(operator_ca)?;
        bundle.push(b'\n');
        bundle.extend_from_slice(issued.authority.as_bytes());
        Ok([
            FileContent::new(self.bundle.clone(), bundle),
            FileContent::new(self.key.clone(), issued.key.expose()),
            FileContent::new(self.cert.clone(), issued.cert.as_str()),
        ])
    }
}

impl IssuedCertificate {
    pub fn issue() -> Result<Self, rcgen::Error> {
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
        Ok(Self {
            authority: authority_cert.pem(),
            cert: client_cert.pem(),
            key: Secret::new(client_key.serialize_pem()),
        })
    }
}
