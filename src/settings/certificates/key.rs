//! Private keys: whether they can be read, and whose they are.

use std::path::Path;

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

use super::der::{self, INTEGER, OCTET_STRING, SEQUENCE};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    Same,
    Other,
    /// A kind of key that cannot be looked into here.
    Unknown,
}

/// The first private key of a file, which is the one that nats-server takes.
pub fn read(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    if is_encrypted(&String::from_utf8_lossy(&bytes)) {
        return Err("its private key is encrypted, and nobody is there to type the pass phrase: decrypt it with \
                    `openssl pkey -in FILE -out NEW_FILE`"
            .into());
    }
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| "it holds no private key in PEM form that can be read".to_owned())
}

/// PKCS#8 says so in the label, the older forms in a header.
fn is_encrypted(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim);
    let label = lines.find(|line| line.starts_with("-----BEGIN ") && line.ends_with("PRIVATE KEY-----"));
    let header = lines.next().is_some_and(|line| line.starts_with("Proc-Type:") && line.contains("ENCRYPTED"));
    header || label.is_some_and(|label| label.contains("ENCRYPTED"))
}

/// Whether a private key belongs to the public key of a certificate.
pub fn compare(key: &PrivateKeyDer<'_>, spki: &[u8]) -> Match {
    let Some((_, public)) = der::public_key(spki) else { return Match::Unknown };
    let stated = match key {
        PrivateKeyDer::Pkcs1(key) => rsa(key.secret_pkcs1_der()),
        PrivateKeyDer::Sec1(key) => elliptic(key.secret_sec1_der()),
        PrivateKeyDer::Pkcs8(key) => pkcs8(key.secret_pkcs8_der()),
        _ => None,
    };
    let computed = || {
        let key = rustls::crypto::ring::sign::any_supported_type(key).ok()?;
        let spki = key.public_key()?;
        Some(der::public_key(spki.as_ref())?.1.to_vec())
    };
    match stated.or_else(computed) {
        Some(own) if own == public => Match::Same,
        Some(_) => Match::Other,
        None => Match::Unknown,
    }
}

/// The inner key begins as one of the other forms, or is none that states its public part.
fn pkcs8(der: &[u8]) -> Option<Vec<u8>> {
    let (inside, _) = der::element(der, SEQUENCE)?;
    let (inner, _) = der::element(der::skip(der::skip(inside)?)?, OCTET_STRING)?;
    elliptic(inner).or_else(|| rsa(inner))
}

/// RSAPublicKey, of the first two numbers of an RSAPrivateKey.
fn rsa(der: &[u8]) -> Option<Vec<u8>> {
    let (inside, _) = der::element(der, SEQUENCE)?;
    let numbers = inside.strip_prefix(&[INTEGER, 1, 0])?;
    let end = der::skip(der::skip(numbers)?)?;
    let numbers = &numbers[..numbers.len() - end.len()];
    let mut public = vec![SEQUENCE];
    match numbers.len() {
        short @ 0..=0x7f => public.push(short as u8),
        short @ 0x80..=0xff => public.extend([0x81, short as u8]),
        long => public.extend([0x82, (long >> 8) as u8, long as u8]),
    }
    public.extend_from_slice(numbers);
    Some(public)
}

/// The point in an ECPrivateKey, which most tools write down.
fn elliptic(der: &[u8]) -> Option<Vec<u8>> {
    let (inside, _) = der::element(der, SEQUENCE)?;
    let (_, mut rest) = der::element(inside.strip_prefix(&[INTEGER, 1, 1])?, OCTET_STRING)?;
    while !rest.is_empty() {
        if let Some((public, _)) = der::element(rest, 0xa1) {
            return der::bits(public).map(<[u8]>::to_vec);
        }
        rest = der::skip(rest)?;
    }
    None
}
