//! Whom to trust: a certificate file, the system's certificates, or, only when asked for in words, anybody.

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use crate::connection::ConnectError;

/// Adds TLS to an endpoint.
pub(crate) fn secure(
    endpoint: Endpoint,
    ca_file: Option<&Path>,
    trust_anybody: bool,
) -> Result<Endpoint, ConnectError> {
    // Other crates of a build can bring a second provider; rustls then refuses to choose.
    let _ = ring::default_provider().install_default();
    let config = ClientTlsConfig::new().assume_http2(true);
    let secured = if trust_anybody {
        endpoint.tls_config_with_verifier(config, Arc::new(TrustAnybody(ring::default_provider())))
    } else {
        let certificates = match ca_file {
            Some(file) => vec![read_certificates(file)?],
            None => system_certificates()?,
        };
        endpoint.tls_config(config.ca_certificates(certificates))
    };
    secured.map_err(|error| ConnectError::Tls(crate::error::innermost(&error)))
}

fn read_certificates(file: &Path) -> Result<Certificate, ConnectError> {
    let pem = std::fs::read_to_string(file)
        .map_err(|error| ConnectError::Tls(format!("cannot read {}: {error}", file.display())))?;
    if !pem.contains("BEGIN CERTIFICATE") {
        return Err(ConnectError::Tls(format!(
            "{} holds no certificate in PEM form",
            file.display()
        )));
    }
    Ok(Certificate::from_pem(pem))
}

fn system_certificates() -> Result<Vec<Certificate>, ConnectError> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        return Err(ConnectError::Tls(
            "the system has no certificates to trust; name one with --tls-ca FILE".to_owned(),
        ));
    }
    Ok(found
        .certs
        .iter()
        .map(|certificate| {
            let body = BASE64_STANDARD.encode(certificate.as_ref());
            let lines: Vec<&str> = (0..body.len())
                .step_by(64)
                .map(|start| &body[start..body.len().min(start + 64)])
                .collect();
            Certificate::from_pem(format!(
                "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
                lines.join("\n")
            ))
        })
        .collect())
}

/// What `--insecure` asks for: the connection is encrypted, but to whom is not known.
#[derive(Debug)]
struct TrustAnybody(CryptoProvider);

impl ServerCertVerifier for TrustAnybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
