//! A `hearthd` elsewhere: its port of signed requests, over TLS.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::endpoint::ConnectError;

/// As long as aws waits.
const CONNECT: Duration = Duration::from_secs(60);

/// Where a `hearthd` elsewhere is called: `https://HOST[:PORT]`, or `http://` on this machine.
#[derive(Debug, Clone)]
pub struct Address {
    url: String,
    host: String,
    port: u16,
    is_secure: bool,
}

/// By what a server's certificate is trusted.
#[derive(Debug, Clone)]
pub enum Trust {
    /// This machine's authorities.
    System,
    /// The authorities in a file, PEM.
    Bundle(PathBuf),
    /// Whoever answers.
    Anybody,
}

/// A connection's bytes.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Address {
    /// # Errors
    /// [`ConnectError::Malformed`], or [`ConnectError::Plain`] for plain text over a network: whoever reads a token there could
    /// call with it.
    pub fn parse(url: &str) -> Result<Self, ConnectError> {
        let malformed = || ConnectError::Malformed(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| malformed())?;
        let is_secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(malformed()),
        };
        let authority = uri.authority().ok_or_else(malformed)?;
        let has_path = !matches!(uri.path_and_query().map_or("/", |path| path.as_str()), "" | "/");
        // The crate takes a port that is no number for none.
        let is_odd = authority.as_str() != authority.host() && authority.port_u16().is_none();
        if has_path || is_odd || authority.as_str().contains('@') {
            return Err(malformed());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let is_here = host == "localhost"
            || host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback());
        if !is_secure && !is_here {
            return Err(ConnectError::Plain(url.to_owned()));
        }
        Ok(Self {
            url: url.to_owned(),
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(if is_secure { 443 } else { 80 }),
            is_secure,
        })
    }

    /// As HTTP/2 has it.
    pub(crate) fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// Connects, and checks who answers.
    pub(crate) async fn connect(&self, tls: Option<&TlsConnector>) -> Result<Box<dyn Stream>, ConnectError> {
        let refused = |source| ConnectError::Unreachable {
            url: self.url.clone(),
            source,
        };
        let late = |_| ConnectError::Late {
            url: self.url.clone(),
        };
        let dialled = TcpStream::connect((self.host.as_str(), self.port));
        let stream = tokio::time::timeout(CONNECT, dialled).await.map_err(late)?;
        let stream = stream.map_err(refused)?;
        stream.set_nodelay(true).map_err(refused)?;
        let Some(tls) = tls else {
            return Ok(Box::new(stream));
        };
        let untrusted = |source| ConnectError::Untrusted {
            url: self.url.clone(),
            source,
        };
        let name = ServerName::try_from(self.host.clone())
            .map_err(|error| untrusted(std::io::Error::other(error)))?;
        let shaken = tokio::time::timeout(CONNECT, tls.connect(name, stream));
        let stream = shaken.await.map_err(late)?.map_err(untrusted)?;
        Ok(Box::new(stream))
    }

    /// `None`: in plain text.
    pub(crate) fn tls(&self, trust: &Trust) -> Result<Option<TlsConnector>, ConnectError> {
        if !self.is_secure {
            return Ok(None);
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(ConnectError::Tls)?;
        let mut config = match trust {
            Trust::Anybody => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Unverified(provider)))
                .with_no_client_auth(),
            Trust::Bundle(path) => builder
                .with_root_certificates(bundle(path)?)
                .with_no_client_auth(),
            Trust::System => builder.with_root_certificates(system()).with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Some(TlsConnector::from(Arc::new(config))))
    }
}

fn bundle(path: &Path) -> Result<RootCertStore, ConnectError> {
    let unusable = |problem: String| ConnectError::Bundle {
        path: path.to_owned(),
        problem,
    };
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| unusable(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| unusable(error.to_string()))?;
    }
    match roots.is_empty() {
        true => Err(unusable("there is no certificate in it".to_owned())),
        false => Ok(roots),
    }
}

/// Without those that cannot be read: a server that needs one of them is not trusted.
fn system() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// Believes every certificate: the caller has asked for that.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_addresses() {
        for (url, authority, is_secure) in [
            ("https://cloud.example", "cloud.example:443", true),
            ("https://cloud.example:7602/", "cloud.example:7602", true),
            ("https://[2001:db8::1]:7602", "[2001:db8::1]:7602", true),
            ("http://127.0.0.1:7602", "127.0.0.1:7602", false),
            ("http://localhost", "localhost:80", false),
            ("http://[::1]:1", "[::1]:1", false),
        ] {
            let address = Address::parse(url).unwrap();
            assert_eq!(
                (address.authority().as_str(), address.is_secure),
                (authority, is_secure)
            );
        }
        for url in [
            "",
            "cloud.example",
            "cloud.example:7602",
            "ftp://cloud.example",
            "https://",
            "https://cloud.example/path",
            "https://cloud.example?query",
            "https://user:password@cloud.example",
            "https://cloud.example:port",
        ] {
            let refused = Address::parse(url);
            assert!(
                matches!(refused, Err(ConnectError::Malformed(_))),
                "{url}: {refused:?}"
            );
        }
        for url in [
            "http://192.0.2.1:7602",
            "http://cloud.example",
            "http://localhost.example",
        ] {
            assert!(
                matches!(Address::parse(url), Err(ConnectError::Plain(_))),
                "{url}"
            );
        }
    }
}
