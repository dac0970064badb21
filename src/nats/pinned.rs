//! TLS to our own server, which we tell by the very certificate that it must show.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::verify_tls13_signature_with_raw_key;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::settings::ClientCertificate;
use crate::signatures;

/// Expects `leaf`, or what lies at `path` now; shows `shown` where the server asks for one.
pub fn client_config(
    leaf: &CertificateDer<'static>,
    path: &Path,
    shown: Option<&ClientCertificate>,
) -> Result<ClientConfig, String> {
    let on_disk = CertificateDer::from_pem_file(path).ok();
    let expected = on_disk.into_iter().chain([leaf.clone()]).collect();
    let builder = ClientConfig::builder_with_provider(signatures::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ExactCertificate { expected }));
    let Some(shown) = shown else {
        return Ok(builder.with_no_client_auth());
    };
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(&shown.cert).map_err(|error| error.to_string())?.collect();
    let chain = chain.map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::from_pem_file(&shown.key).map_err(|error| error.to_string())?;
    builder.with_client_auth_cert(chain, key).map_err(|error| error.to_string())
}

/// Accepts exactly the certificate that the settings name. We dial a loopback address, which the
/// certificate does not bear, but we know the very certificate the server must show.
#[derive(Debug)]
struct ExactCertificate {
    expected: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for ExactCertificate {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.expected.iter().any(|expected| expected == end_entity) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::General("the server does not show the certificate of NATS_TLS_CERT".into()))
        }
    }

    /// Never asked for: we speak TLS 1.3 alone.
    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("the server does not speak TLS 1.3".into()))
    }

    /// The certificate is only the place of the key: webpki would refuse one of X.509 version 1, which
    /// nats-server serves.
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let (_, parsed) = X509Certificate::from_der(cert).map_err(|_| CertificateError::BadEncoding)?;
        let key = SubjectPublicKeyInfoDer::from(parsed.public_key().raw);
        verify_tls13_signature_with_raw_key(message, &key, dss, &signatures::algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        signatures::algorithms().supported_schemes()
    }
}
