//! TLS from PEM files: one place that turns two files into what a listener needs, and says which file is wrong.

use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What Flight clients negotiate.
pub const ALPN_FLIGHT: &[&[u8]] = &[b"h2"];
/// What HTTP clients negotiate.
pub const ALPN_HTTP: &[&[u8]] = &[b"http/1.1"];

/// What is wrong with the files of `server.tls_certificate_file` and `server.tls_key_file`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file that cannot be read.
    #[error("cannot read {}: {reason}; check `{setting}`", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The setting that names it.
        setting: &'static str,
        /// The operating system's reason.
        reason: String,
    },
    /// A file without what it should hold.
    #[error("{} holds no {wanted} in PEM form; check `{setting}`", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// The setting that names it.
        setting: &'static str,
        /// certificate or private key.
        wanted: &'static str,
    },
    /// A file with a damaged part.
    #[error("{} is not valid PEM: {reason}; check `{setting}`", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The setting that names it.
        setting: &'static str,
        /// The parser's reason.
        reason: String,
    },
    /// Two files that do not belong together, or a certificate or key that cannot be used.
    #[error("cannot use {} with {}: {reason}", certificate.display(), key.display())]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// The TLS library's reason.
        reason: String,
    },
}

const CERTIFICATE: &str = "server.tls_certificate_file";
const KEY: &str = "server.tls_key_file";

/// Reads a certificate chain and its key, for a listener that offers `alpn`.
///
/// # Errors
/// The first file that is wrong, and how.
pub fn load(certificate: &Path, key: &Path, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = certificates(certificate)?;
    let secret =
        PrivateKeyDer::from_pem_slice(&read(key, KEY)?).map_err(|error| pem_error(&error, key, KEY, "private key"))?;
    let unusable = |error: rustls::Error| TlsError::Unusable {
        certificate: certificate.to_path_buf(),
        key: key.to_path_buf(),
        reason: match error {
            rustls::Error::InconsistentKeys(_) => "the key does not belong to the certificate".to_string(),
            other => other.to_string(),
        },
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(unusable)?;
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path, CERTIFICATE)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| pem_error(&error, path, CERTIFICATE, "certificate"))?;
    if chain.is_empty() {
        return Err(pem_error(&PemError::NoItemsFound, path, CERTIFICATE, "certificate"));
    }
    Ok(chain)
}

fn read(path: &Path, setting: &'static str) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| TlsError::Unreadable {
        path: path.to_path_buf(),
        setting,
        reason: error.to_string(),
    })
}

/// The parser's `Debug` may show a part of a key, so only its `Display` is used.
fn pem_error(error: &PemError, path: &Path, setting: &'static str, wanted: &'static str) -> TlsError {
    let path = path.to_path_buf();
    match error {
        PemError::NoItemsFound => TlsError::Empty { path, setting, wanted },
        PemError::MissingSectionEnd { .. } => TlsError::Damaged {
            path,
            setting,
            reason: "a section has no end".to_string(),
        },
        other => TlsError::Damaged {
            path,
            setting,
            reason: other.to_string(),
        },
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A self-signed certificate for localhost, valid until 2126, made for tests only.
    pub(crate) const CERTIFICATE_PEM: &str = include_str!("../testdata/localhost.pem");
    pub(crate) const KEY_PEM: &str = include_str!("../testdata/localhost.key");
    const OTHER_KEY_PEM: &str = include_str!("../testdata/other.key");

    #[test]
    fn errors_name_the_file_and_the_fault() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let good = write("good.pem", CERTIFICATE_PEM);
        let key = write("good.key", KEY_PEM);
        let other = write("other.key", OTHER_KEY_PEM);
        let empty = write("empty.pem", "");
        let cut = write("cut.pem", &CERTIFICATE_PEM[..200]);
        let error = |certificate: &Path, key: &Path| load(certificate, key, ALPN_FLIGHT).unwrap_err().to_string();

        assert_eq!(load(&good, &key, ALPN_FLIGHT).unwrap().alpn_protocols, [b"h2".to_vec()]);
        assert!(error(&good, &other).ends_with("the key does not belong to the certificate"));
        assert!(error(&empty, &key).contains("empty.pem holds no certificate in PEM form; check `server.tls_cert"));
        assert!(error(&good, &empty).contains("empty.pem holds no private key"));
        assert!(error(&cut, &key).contains("cut.pem is not valid PEM: a section has no end"));
        assert!(error(&good, &folder.path().join("absent")).contains("check `server.tls_key_file`"));
    }
}
