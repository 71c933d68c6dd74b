//! TLS: a rustls configuration from PEM files, with the ring provider named explicitly so that another crate's choice of
//! provider cannot make it ambiguous.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::Tls;

/// TLS files that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path}: cannot be read ({reason}): check the path and that the user kinewatch may read it")]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's words.
        reason: String,
    },
    /// A file holds no certificate.
    #[error("{path}: contains no certificate in PEM form (-----BEGIN CERTIFICATE-----)")]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A file holds no private key.
    #[error("{path}: contains no private key in PEM form (an encrypted key cannot be used)")]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// Only one of certificate and key.
    #[error("a client certificate and its key go together: give both files or none")]
    Pair,
    /// The certificate does not fit the key, or is of an unknown kind.
    #[error("{path}: the client certificate cannot be used ({reason})")]
    Client {
        /// The certificate file.
        path: PathBuf,
        /// rustls' words.
        reason: String,
    },
    /// The system has no certificate authorities.
    #[error("no certificate authorities found on this system: name a CA file in [mqtt], or install ca-certificates")]
    NoSystemRoots,
    /// Anything else.
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

/// Reads the files; blocks on the disk.
pub(crate) fn client_config(tls: &Tls) -> Result<ClientConfig, TlsError> {
    let roots = roots(tls.ca.as_deref())?;
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| TlsError::Setup(e.to_string()))?
        .with_root_certificates(roots);
    match (&tls.certificate, &tls.key) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(certificate), Some(key)) => builder
            .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
            .map_err(|e| TlsError::Client { path: certificate.clone(), reason: e.to_string() }),
        _ => Err(TlsError::Pair),
    }
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca {
        let (added, _) = roots.add_parsable_certificates(certificates(path)?);
        if added == 0 {
            return Err(TlsError::NoCertificate { path: path.to_owned() });
        }
    } else {
        let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if added == 0 {
            return Err(TlsError::NoSystemRoots);
        }
    }
    Ok(roots)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|e| TlsError::Read { path: path.to_owned(), reason: e.to_string() })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = rustls_pemfile::certs(&mut read(path)?.as_slice()).collect();
    found
        .ok()
        .filter(|certificates| !certificates.is_empty())
        .ok_or_else(|| TlsError::NoCertificate { path: path.to_owned() })
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    rustls_pemfile::private_key(&mut read(path)?.as_slice())
        .ok()
        .flatten()
        .ok_or_else(|| TlsError::NoKey { path: path.to_owned() })
}
