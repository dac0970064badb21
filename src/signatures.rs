//! TLS signatures that we can check: those of ring, and ECDSA on P-521, which ring lacks and
//! nats-server serves. Without it our own connection could not tell its server from another that
//! shows the same certificate.

use std::sync::{Arc, LazyLock};

use p521::ecdsa::signature::Verifier;
use p521::ecdsa::{Signature, VerifyingKey};
use rustls::SignatureScheme;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm};

/// The one provider of every TLS connection that we make.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = rustls::crypto::ring::default_provider();
        provider.signature_verification_algorithms = algorithms();
        Arc::new(provider)
    });
    PROVIDER.clone()
}

/// Those of ring and one more; made once, because rustls wants them for ever.
pub fn algorithms() -> WebPkiSupportedAlgorithms {
    static ALGORITHMS: LazyLock<WebPkiSupportedAlgorithms> = LazyLock::new(|| {
        const P521: &[&dyn SignatureVerificationAlgorithm] = &[&EcdsaP521];
        let ring = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        let all = [ring.all, P521].concat();
        let mapping = [ring.mapping, &[(SignatureScheme::ECDSA_NISTP521_SHA512, P521)]].concat();
        WebPkiSupportedAlgorithms { all: Vec::leak(all), mapping: Vec::leak(mapping) }
    });
    *ALGORITHMS
}

/// ECDSA on P-521 with SHA-512.
#[derive(Debug)]
struct EcdsaP521;

impl SignatureVerificationAlgorithm for EcdsaP521 {
    fn verify_signature(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let key = VerifyingKey::from_sec1_bytes(public_key).map_err(|_| InvalidSignature)?;
        let signature = Signature::from_der(signature).map_err(|_| InvalidSignature)?;
        key.verify(message, &signature).map_err(|_| InvalidSignature)
    }

    /// id-ecPublicKey on secp521r1.
    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        AlgorithmIdentifier::from_slice(&[
            0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23,
        ])
    }

    /// ecdsa-with-SHA512.
    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        AlgorithmIdentifier::from_slice(&[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with `openssl dgst -sha512 -sign` over "message".
    const KEY: &str = "0400f6f4a26a01cb5e5f178f8c7b1549f31cf8cd0772fba4ac05543e22f011600924388326eda8dc903ac260 \
        9567f197186cbd3dc8954f22b6ad192a20e21a6c015438012957b32b378de821ce3844677555a1e55ccf026c \
        58c6b90e84b4a6ea038f49e09a60d1dab48dd1284bd651e6f3ce87cc31db335de953d9bdf462fa822d653974 \
        83";
    const SIGNATURE: &str = "30818802420119679c2785c3679e1cfb7ef71821bee264cc2ee49ded219815688612977721aea63f134c7e65 \
        ef8a38b6f0797867f1c27b43b18a423e605abc13e8484a4ea3f32502420089a2212147fc28f6582ebc922085 \
        b175dd4670562dff3fa21dd68a3c0a34bbf95a3b7ee8529891d487647044b6fbacd46492ae762c9160c6d8bb \
        aefa062c9a65fd";

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<_> = hex.bytes().filter(u8::is_ascii_hexdigit).map(char::from).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap()).collect()
    }

    #[test]
    fn a_signature_on_p521_is_good_for_its_key_and_message_only() {
        let verify = |key: &[u8], message: &[u8]| EcdsaP521.verify_signature(key, message, &bytes(SIGNATURE)).is_ok();
        let key = bytes(KEY);
        assert!(verify(&key, b"message"));
        assert!(!verify(&key, b"massage"));
        // The same point mirrored: the public key of somebody else.
        let mut other = key.clone();
        other[0] = 2 + (other[132] & 1 ^ 1);
        other.truncate(67);
        assert!(!verify(&other, b"message"));
    }

    #[test]
    fn servers_are_told_of_it() {
        assert!(algorithms().supported_schemes().contains(&SignatureScheme::ECDSA_NISTP521_SHA512));
        assert!(provider().signature_verification_algorithms.all.len() > 10);
    }
}
