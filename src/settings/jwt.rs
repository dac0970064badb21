//! By what the tokens of callers are checked.

use std::path::{Path, PathBuf};

use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::Purpose;
use super::reader::Reader;
use super::secret_file;
use super::variables::*;
use crate::domain::Secret;

#[derive(Clone, Debug)]
pub struct JwtSettings {
    pub key: JwtKey,
    /// What tokens must name, where it is set.
    pub issuer: Option<String>,
    pub audience: Option<String>,
}

#[derive(Clone, Debug)]
pub enum JwtKey {
    /// The file of a public key; tokens of its algorithm count, and no others.
    Public { file: PathBuf, algorithm: JwtAlgorithm },
    /// HS256.
    Shared(Secret),
}

/// How tokens are signed whose public key we have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwtAlgorithm {
    Rs256,
    Es256,
    EdDsa,
}

/// What earlier versions of the bus signed with unless told otherwise.
const OLD_DEFAULT: &str = "message-bus-secret-key";
/// HS256 is as strong as its key, up to so many bytes.
const STRONG: usize = 32;

impl JwtSettings {
    pub fn read(reader: &mut Reader, purpose: Purpose) -> Option<Self> {
        let [issuer, audience] = [&GRPC_JWT_ISSUER, &GRPC_JWT_AUDIENCE].map(|variable| reader.text(variable));
        if reader.is_set(&GRPC_JWT_PUBLIC_KEY_FILE) && reader.is_set(&GRPC_JWT_SECRET_FILE) {
            reader.problems.add(
                "GRPC_JWT_PUBLIC_KEY_FILE, GRPC_JWT_SECRET_FILE",
                "both",
                "tokens are checked in one way",
                "unset GRPC_JWT_SECRET_FILE, or the other",
            );
            return None;
        }
        if purpose != Purpose::Run {
            return None;
        }
        let key = match read_public(reader) {
            Some(key) => key,
            None => read_shared(reader)?,
        };
        Some(Self { key, issuer, audience })
    }
}

fn read_public(reader: &mut Reader) -> Option<JwtKey> {
    let file = reader.readable_file(&GRPC_JWT_PUBLIC_KEY_FILE)?;
    match algorithm(&file) {
        Ok(algorithm) => Some(JwtKey::Public { file, algorithm }),
        Err(reason) => {
            reader.refuse(&GRPC_JWT_PUBLIC_KEY_FILE, &reason);
            None
        }
    }
}

fn algorithm(file: &Path) -> Result<JwtAlgorithm, String> {
    const RSA: &str = "1.2.840.113549.1.1.1";
    const EC: &str = "1.2.840.10045.2.1";
    const P256: &str = "1.2.840.10045.3.1.7";
    const ED25519: &str = "1.3.101.112";
    let der = SubjectPublicKeyInfoDer::from_pem_file(file)
        .map_err(|_| "it holds no PUBLIC KEY; `openssl pkey -in KEY -pubout` makes one of a private key")?;
    let (_, key) = SubjectPublicKeyInfo::from_der(&der).map_err(|_| "its PUBLIC KEY cannot be read")?;
    let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    match (key.algorithm.algorithm.to_id_string().as_str(), curve.map(|oid| oid.to_id_string()).as_deref()) {
        (RSA, _) => Ok(JwtAlgorithm::Rs256),
        (EC, Some(P256)) => Ok(JwtAlgorithm::Es256),
        (ED25519, _) => Ok(JwtAlgorithm::EdDsa),
        _ => Err("its key is not RSA, ECDSA on P-256 or Ed25519".into()),
    }
}

fn read_shared(reader: &mut Reader) -> Option<JwtKey> {
    let file = reader.readable_file(&GRPC_JWT_SECRET_FILE)?;
    let text = match secret_file::read(&file) {
        Ok(text) if text.is_empty() => Err("it is empty".to_owned()),
        Ok(text) if text == OLD_DEFAULT => {
            Err(format!("it holds {OLD_DEFAULT}, which earlier versions came with, so everybody knows it"))
        }
        read => read,
    };
    match text {
        Ok(text) => {
            if text.len() < STRONG {
                reader.warnings.push(format!(
                    "GRPC_JWT_SECRET_FILE names a secret of less than {STRONG} bytes, which can be guessed from a token; \
                     `openssl rand -hex 32` makes a better one"
                ));
            }
            Some(JwtKey::Shared(Secret::new(text)))
        }
        Err(reason) => {
            reader.refuse(&GRPC_JWT_SECRET_FILE, &reason);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Problems;
    use crate::settings::tests::load;

    fn jwt(variable: &str, text: &str) -> Result<(JwtKey, Vec<String>), Problems> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, text).unwrap();
        let loaded = load(&[(variable, path.to_str().unwrap())])?;
        Ok((loaded.settings.grpc.jwt.unwrap().key, loaded.warnings))
    }

    #[test]
    fn the_kind_of_a_public_key_says_which_tokens_count() {
        for (algorithm, expected) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, Some(JwtAlgorithm::Es256)),
            (&rcgen::PKCS_ED25519, Some(JwtAlgorithm::EdDsa)),
            (&rcgen::PKCS_ECDSA_P384_SHA384, None),
        ] {
            let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
            let found = jwt("GRPC_JWT_PUBLIC_KEY_FILE", &key.public_key_pem()).map(|(key, _)| key);
            match (found, expected) {
                (Ok(JwtKey::Public { algorithm, .. }), Some(expected)) => assert_eq!(algorithm, expected),
                (Err(problems), None) => assert!(problems.to_string().contains("P-256 or Ed25519"), "{problems}"),
                (other, expected) => panic!("{other:?} for {expected:?}"),
            }
            let problems = jwt("GRPC_JWT_PUBLIC_KEY_FILE", &key.serialize_pem()).unwrap_err();
            assert!(problems.to_string().contains("holds no PUBLIC KEY"), "{problems}");
            assert!(!problems.to_string().contains("BEGIN"), "{problems}");
        }
    }

    #[test]
    fn a_shared_secret_comes_from_its_file_and_is_not_the_one_that_everybody_knows() {
        let strong = "tell-nobody-".repeat(3);
        let (key, warnings) = jwt("GRPC_JWT_SECRET_FILE", &format!("{strong}\n")).unwrap();
        assert!(matches!(&key, JwtKey::Shared(secret) if secret.expose() == strong));
        assert!(!format!("{key:?} {warnings:?}").contains("tell-nobody"));
        assert!(!warnings.iter().any(|warning| warning.contains("guessed")), "{warnings:?}");
        let (_, warnings) = jwt("GRPC_JWT_SECRET_FILE", "tell-nobody").unwrap();
        assert!(warnings.iter().any(|warning| warning.contains("less than 32 bytes")), "{warnings:?}");
        for (text, reason) in
            [(OLD_DEFAULT, "everybody knows it"), ("message-bus-secret-key\n", "everybody"), ("\n", "empty")]
        {
            let problems = jwt("GRPC_JWT_SECRET_FILE", text).unwrap_err();
            assert!(problems.list.len() == 1 && problems.to_string().contains(reason), "{problems}");
        }
    }

    #[test]
    fn a_secret_in_the_place_of_its_file_is_not_shown() {
        let problems = load(&[("GRPC_JWT_SECRET_FILE", "tell-nobody")]).unwrap_err();
        assert!(!problems.to_string().contains("tell-nobody"), "{problems}");
        let problems = load(&[("GRPC_JWT_SECRET_FILE", "/nonexistent/x")]).unwrap_err();
        assert!(problems.to_string().contains("/nonexistent/x"), "{problems}");
    }

    #[test]
    fn tokens_are_checked_in_one_way() {
        let problems =
            load(&[("GRPC_JWT_PUBLIC_KEY_FILE", "/etc/hostname"), ("GRPC_JWT_SECRET_FILE", "/etc/hostname")])
                .unwrap_err();
        assert_eq!(problems.list.len(), 1, "{problems}");
    }
}
