//! TLS towards callers, who show no certificate: they sign their requests.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::ResolvesServerCert;
use tokio_rustls::TlsAcceptor;

use super::given::GivenCertificate;
use super::issued::{IssuedCertificate, hostname};
use super::{Authority, PkiError};

/// How `hearthd` speaks TLS with callers.
#[derive(Debug)]
pub struct CallersTls {
    config: Arc<ServerConfig>,
    issued: Option<Arc<IssuedCertificate>>,
}

impl CallersTls {
    /// With the operator's certificate: a chain and its key, PEM.
    ///
    /// # Errors
    /// As [`GivenCertificate::open`].
    pub fn given(chain: &Path, key: &Path) -> Result<Self, PkiError> {
        Ok(Self {
            config: config(Arc::new(GivenCertificate::open(chain, key)?))?,
            issued: None,
        })
    }

    /// With a certificate of the cloud's own authority: for this machine's name, `localhost`, the names given, and each address
    /// at which callers call.
    ///
    /// # Errors
    /// A name is none of DNS, or the certificate cannot be made.
    pub fn issued(authority: &Arc<Authority>, names: &[String]) -> Result<Self, PkiError> {
        let mut all: Vec<String> = hostname().into_iter().collect();
        all.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
        all.extend(names.iter().cloned());
        let issued = Arc::new(IssuedCertificate::new(Arc::clone(authority), all)?);
        Ok(Self {
            config: config(Arc::<IssuedCertificate>::clone(&issued))?,
            issued: Some(issued),
        })
    }

    /// For a connection to an address of this machine.
    pub fn acceptor(&self, local: IpAddr) -> TlsAcceptor {
        if let Some(issued) = &self.issued {
            issued.cover(local.to_canonical());
        }
        TlsAcceptor::from(Arc::clone(&self.config))
    }
}

fn config(certificate: Arc<dyn ResolvesServerCert>) -> Result<Arc<ServerConfig>, PkiError> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
