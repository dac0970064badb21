//! What a certificate is good for: whether we can check what its key signs, and what those that it is
//! shown to make of it.

use x509_parser::asn1_rs::Tag;
use x509_parser::prelude::{GeneralName, X509Certificate};

use super::der;
use crate::signatures;

/// What a certificate is shown for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// By our nats-server, to its clients and to us.
    Server,
    /// By us, to a server that others run.
    Client,
}

/// Keys that we can check signatures of.
const CHECKED: &str = "ECDSA on P-256, P-384 and P-521, Ed25519, and RSA of 2048 to 8192 bits";
/// ring checks no other RSA keys.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Why this program cannot check what a key signs, as a phrase that follows the certificate.
pub(super) fn unchecked_key(parsed: &X509Certificate<'_>) -> Option<String> {
    let of_no_known_kind = || {
        let kind = named(&parsed.public_key().algorithm);
        Some(format!("has {kind}: it can with {CHECKED}"))
    };
    let Some((algorithm, public)) = der::public_key(parsed.public_key().raw) else { return of_no_known_kind() };
    let known = signatures::algorithms();
    let mut in_tls = known.mapping.iter().flat_map(|(_, algorithms)| algorithms.iter());
    if !in_tls.any(|known| known.public_key_alg_id().as_ref() == algorithm) {
        return of_no_known_kind();
    }
    let bits = rsa_bits(algorithm, public)?;
    (!RSA_BITS.contains(&bits)).then(|| format!("has an RSA key of {bits} bits: it can with {CHECKED}"))
}

/// Of an RSA key: how long it is.
fn rsa_bits(algorithm: &[u8], public: &[u8]) -> Option<usize> {
    /// rsaEncryption.
    const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
    if !algorithm.starts_with(RSA) {
        return None;
    }
    let (modulus, _) = der::element(der::element(public, der::SEQUENCE)?.0, der::INTEGER)?;
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    let first = modulus.get(zeros)?;
    Some(8 * (modulus.len() - zeros) - first.leading_zeros() as usize)
}

fn named(algorithm: &x509_parser::x509::AlgorithmIdentifier<'_>) -> String {
    let named = algorithm.parameters.as_ref().filter(|parameters| parameters.header.tag() == Tag::Oid);
    let curve = named.and_then(|parameters| parameters.as_oid().ok());
    match curve.map(|oid| oid.to_id_string()).as_deref() {
        Some("1.3.132.0.33") => "a key on the curve P-224".into(),
        Some(curve) => format!("a key on the curve {curve}"),
        None if algorithm.algorithm.to_id_string() == "1.2.840.10045.2.1" => "a key on a curve without a name".into(),
        None => format!("a key of the kind {}", algorithm.algorithm.to_id_string()),
    }
}

/// What those that it is shown to refuse, as phrases that follow the certificate, each with the way out.
pub(super) fn doubts(parsed: &X509Certificate<'_>, role: Role) -> Vec<String> {
    let mut doubts = vec![];
    if role == Role::Server && !has_a_name(parsed) {
        doubts.push(
            "has no subjectAltName with a DNS name or an address, and clients look for the server's name nowhere else: \
             make it anew with the names that clients connect to"
                .to_owned(),
        );
    }
    let usage = parsed.extended_key_usage().ok().flatten().map(|extension| extension.value);
    let (needed, others) = match role {
        Role::Server => ("serverAuth", "clients refuse a server"),
        Role::Client => ("clientAuth", "servers refuse a client"),
    };
    let lacks = usage.is_some_and(|usage| {
        let has = if role == Role::Server { usage.server_auth } else { usage.client_auth };
        !usage.any && !has
    });
    if lacks {
        doubts.push(format!(
            "has an extendedKeyUsage without {needed}, and {others} with such a certificate: make it anew with {needed}, \
             or without extendedKeyUsage"
        ));
    }
    let usage = parsed.key_usage().ok().flatten().map(|extension| extension.value);
    if usage.is_some_and(|usage| !usage.digital_signature() && !usage.key_encipherment() && !usage.key_agreement()) {
        doubts.push(
            "has a keyUsage without digitalSignature, and many refuse its signatures: make it anew with digitalSignature"
                .to_owned(),
        );
    }
    doubts
}

fn has_a_name(parsed: &X509Certificate<'_>) -> bool {
    let names = parsed.subject_alternative_name().ok().flatten().map(|extension| &extension.value.general_names);
    names.into_iter().flatten().any(|name| matches!(name, GeneralName::DNSName(_) | GeneralName::IPAddress(_)))
}

/// The hash of a signature that nobody takes any more.
pub(super) fn outdated_hash(parsed: &X509Certificate<'_>) -> Option<&'static str> {
    match parsed.signature_algorithm.algorithm.to_id_string().as_str() {
        "1.2.840.113549.1.1.4" => Some("MD5"),
        "1.2.840.113549.1.1.5" | "1.2.840.10045.4.1" | "1.3.14.3.2.29" => Some("SHA-1"),
        _ => None,
    }
}
