//! Certificate files. What nats-server and its clients would refuse is refused here, before anything
//! is started; what they may take and we cannot check, or do not know, is a warning.

mod der;
mod fitness;
mod key;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::signatures;
pub use fitness::Role;
pub use key::Match;

/// How long before its end a certificate is warned of.
const EXPIRY_WARNING: Duration = Duration::from_secs(14 * 24 * 3600);

/// A certificate with those that vouch for it, and what people should know about them.
#[derive(Debug)]
pub struct Chain {
    pub leaf: CertificateDer<'static>,
    pub warnings: Vec<String>,
}

/// A certificate as far as it matters here.
struct Certificate<'a> {
    der: &'a CertificateDer<'static>,
    parsed: X509Certificate<'a>,
    not_before: SystemTime,
    not_after: SystemTime,
}

/// What a file of a certificate comes to that is shown in that role.
pub fn chain(cert: &Path, role: Role, now: SystemTime) -> Result<Chain, String> {
    let ders = read(cert)?;
    let certificates = parse(&ders)?;
    let mut warnings = check_chain(&certificates, cert, now)?;
    let first = &certificates[0];
    // Of a server's certificate we are the first client.
    if let Some(reason) = fitness::unchecked_key(&first.parsed).filter(|_| role == Role::Server) {
        return Err(format!("this program could not check its own connection to the server: the certificate {reason}"));
    }
    warnings.extend(fitness::doubts(&first.parsed, role).iter().map(|doubt| first.describe(cert, doubt)));
    Ok(Chain { leaf: ders[0].clone(), warnings })
}

/// What a file of a certificate and its private key comes to.
pub fn pair(cert: &Path, key: &Path, role: Role, now: SystemTime) -> Result<Chain, (Part, String)> {
    let of_certificate = |reason| (Part::Certificate, reason);
    let Chain { leaf, mut warnings } = chain(cert, role, now).map_err(of_certificate)?;
    let certificate = Certificate::parse(&leaf).ok_or_else(|| of_certificate("it cannot be read".to_owned()))?;
    let private = key::read(key).map_err(|reason| (Part::Key, reason))?;
    match key::compare(&private, certificate.parsed.public_key().raw) {
        Match::Same => {}
        Match::Other => {
            return Err((Part::Key, format!("it does not belong to the certificate in {}", cert.display())));
        }
        Match::Unknown => warnings.push(format!(
            "whether the private key in {} belongs to the certificate in {} cannot be told for its kind: nats-server \
             decides when it starts",
            key.display(),
            cert.display()
        )),
    }
    Ok(Chain { leaf, warnings })
}

/// Which file of a pair is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Certificate,
    Key,
}

/// Whether this program itself can sign with a private key.
pub fn can_sign(key: &Path) -> Result<(), String> {
    let private = key::read(key)?;
    rustls::crypto::ring::sign::any_supported_type(&private).map(drop).map_err(|_| {
        "this program cannot sign with a key of its kind: it can with ECDSA on P-256 and P-384, Ed25519, and RSA of 2048, \
         3072 and 4096 bits"
            .to_owned()
    })
}

/// Warnings about authorities that we are to check servers by: those whose signatures we cannot.
pub fn unchecked_authorities(path: &Path) -> Vec<String> {
    let ders = read(path).unwrap_or_default();
    let certificates = parse(&ders).unwrap_or_default();
    let describe = |certificate: &Certificate| {
        let reason = fitness::unchecked_key(&certificate.parsed)?;
        Some(
            certificate
                .describe(path, &format!("vouches for nobody here, because this program cannot check it: it {reason}")),
        )
    };
    certificates.iter().filter_map(describe).collect()
}

/// Warnings about the authorities of a file. One that is good is enough.
pub fn authorities(path: &Path, now: SystemTime) -> Result<Vec<String>, String> {
    let ders = read(path)?;
    let certificates = parse(&ders)?;
    let mut warnings = vec![];
    let mut good = 0;
    for certificate in &certificates {
        match certificate.validity(now) {
            Ok(soon) => {
                good += 1;
                warnings.extend(soon.map(|soon| certificate.describe(path, &soon)));
            }
            Err(reason) if certificates.len() == 1 => return Err(format!("its certificate {reason}")),
            Err(reason) => warnings.push(certificate.describe(path, &reason)),
        }
    }
    if good == 0 {
        return Err(format!("none of its {} certificates is valid now: {}", certificates.len(), warnings.join("; ")));
    }
    Ok(warnings)
}

fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    certificates.ok().filter(|all| !all.is_empty()).ok_or_else(|| "it holds no certificate in PEM form".into())
}

fn parse<'a>(ders: &'a [CertificateDer<'static>]) -> Result<Vec<Certificate<'a>>, String> {
    let parse = |der| Certificate::parse(der).ok_or_else(|| "it holds a certificate that cannot be read".to_owned());
    ders.iter().map(parse).collect()
}

/// Follows the first certificate to those that vouch for it, as a client does: in whatever order they
/// stand, and past those that it does not need.
fn check_chain(certificates: &[Certificate], path: &Path, now: SystemTime) -> Result<Vec<String>, String> {
    let mut warnings = vec![];
    // Also those that nothing depends on, and the root, of which a client has a copy of its own.
    for (i, certificate) in certificates.iter().enumerate() {
        match certificate.validity(now) {
            Err(reason) if i == 0 => return Err(format!("its certificate {reason}")),
            Err(reason) | Ok(Some(reason)) => warnings.push(certificate.describe(path, &reason)),
            Ok(None) => {}
        }
        if let Some(hash) = fitness::outdated_hash(&certificate.parsed).filter(|_| !certificate.is_root()) {
            let reason = format!("is signed with {hash}, which clients refuse: have it signed anew with SHA-256");
            warnings.push(certificate.describe(path, &reason));
        }
    }
    let mut unneeded: Vec<_> = certificates.iter().skip(1).collect();
    let mut current = &certificates[0];
    while !current.is_root() {
        let named: Vec<_> = unneeded.iter().copied().filter(|issuer| issuer.is_named_by(current)).collect();
        let signers: Vec<_> =
            named.iter().copied().filter(|issuer| current.is_signed_by(issuer) != Some(false)).collect();
        let Some(signer) = signers.first() else {
            // Clients have roots of their own, maybe a newer one of the same name.
            let Some(first) = named.iter().find(|issuer| !issuer.is_root()) else { break };
            return Err(format!("{} is not signed by the certificate that it names, {}", current.name(), first.name()));
        };
        // A client has the root itself, valid or not.
        let valid = signers.iter().copied().find(|signer| signer.is_root() || signer.validity(now).is_ok());
        let Some(issuer) = valid else {
            let reason = signer.validity(now).err().unwrap_or_default();
            return Err(format!("its intermediate certificate {} {reason}: clients refuse the chain", signer.name()));
        };
        if current.is_signed_by(issuer).is_none() {
            warnings.push(format!(
                "{}: whether {} is signed by {} cannot be checked here, because of its algorithm",
                path.display(),
                current.name(),
                issuer.name()
            ));
        }
        unneeded.retain(|other| !std::ptr::eq(*other, issuer));
        current = issuer;
    }
    Ok(warnings)
}

impl<'a> Certificate<'a> {
    fn parse(der: &'a CertificateDer<'static>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(der).ok()?;
        let at = |seconds: i64| UNIX_EPOCH + Duration::from_secs(seconds.max(0) as u64);
        let validity = parsed.validity();
        let (not_before, not_after) = (at(validity.not_before.timestamp()), at(validity.not_after.timestamp()));
        Some(Self { der, parsed, not_before, not_after })
    }

    /// Why it is not valid now, or that it soon will not be.
    fn validity(&self, now: SystemTime) -> Result<Option<String>, String> {
        let date = |at| humantime::format_rfc3339_seconds(at);
        if now < self.not_before {
            return Err(format!("is not valid before {}", date(self.not_before)));
        }
        match self.not_after.duration_since(now) {
            Err(_) => Err(format!("expired at {}", date(self.not_after))),
            Ok(left) if left.is_zero() => Err(format!("expired at {}", date(self.not_after))),
            Ok(left) if left < EXPIRY_WARNING => {
                Ok(Some(format!("expires in {} days: replace it", left.as_secs() / 86400)))
            }
            Ok(_) => Ok(None),
        }
    }

    fn name(&self) -> String {
        super::quote(&self.parsed.subject().to_string())
    }

    fn describe(&self, path: &Path, what: &str) -> String {
        format!("the certificate in {} ({}) {what}", path.display(), self.name())
    }

    fn is_root(&self) -> bool {
        self.parsed.subject().as_raw() == self.parsed.issuer().as_raw()
    }

    fn is_named_by(&self, other: &Self) -> bool {
        self.parsed.subject().as_raw() == other.parsed.issuer().as_raw()
    }

    /// Nothing where the algorithm is none that we know.
    fn is_signed_by(&self, issuer: &Self) -> Option<bool> {
        let (algorithm, public) = der::public_key(issuer.parsed.public_key().raw)?;
        let inside = der::element(self.der, der::SEQUENCE)?.0;
        let (signature_algorithm, signature) = der::element(der::skip(inside)?, der::SEQUENCE)?;
        let message = &inside[..inside.len() - der::skip(inside)?.len()];
        let known = signatures::algorithms().all.iter().find(|known| {
            known.public_key_alg_id().as_ref() == algorithm && known.signature_alg_id().as_ref() == signature_algorithm
        })?;
        let is_valid = known.verify_signature(public, message, der::bits(signature)?).is_ok();
        // ring knows no RSA key below 2048 bits.
        let is_short_rsa = algorithm.starts_with(&[0x06, 0x09]) && public.len() < 256;
        if is_short_rsa { None } else { Some(is_valid) }
    }
}
