//! TLS to the control plane: before enrolment the server is known by its CA's fingerprint, afterwards by the CA.

use std::sync::Arc;

use hearth_api::join::SERVER_NAME;
use hyper_util::rt::TokioIo;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use super::Identity;

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("'{0}' is no host:port to dial")]
    Endpoint(String),
    #[error("the certificates of this host are malformed")]
    Pem(#[from] rustls_pki_types::pem::Error),
    #[error("the host's certificate is malformed")]
    Certificate,
    #[error("setting up TLS")]
    Tls(#[from] rustls::Error),
    #[error("connecting to the control plane")]
    Connect(#[source] tonic::transport::Error),
}

/// A connection as an enrolled host.
///
/// # Errors
/// It cannot be reached, or is not the one that this host was enrolled by.
pub async fn connect(identity: &Identity, endpoint: &str) -> Result<Channel, TlsError> {
    dial(endpoint, mutual(identity)?).await
}

/// A connection as a stranger, to whom a CA with this fingerprint has to vouch for the server.
pub(super) async fn connect_unenrolled(endpoint: &str, ca_fingerprint: &str) -> Result<Channel, TlsError> {
    let provider = provider();
    let verifier = PinnedCa {
        provider: Arc::clone(&provider),
        fingerprint: ca_fingerprint.to_owned(),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    dial(endpoint, config).await
}

/// Whether the identity's certificate and key can be used.
pub(super) fn check(identity: &Identity) -> Result<(), TlsError> {
    mutual(identity).map(|_| ())
}

fn mutual(identity: &Identity) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(
        identity.ca_certificate.as_bytes(),
    )?)?;
    let chain =
        CertificateDer::pem_slice_iter(identity.certificate.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

async fn dial(endpoint: &str, config: ClientConfig) -> Result<Channel, TlsError> {
    let address = endpoint.to_owned();
    // The scheme is http to tonic, since the connector below brings the TLS.
    let channel = Endpoint::from_shared(format!("http://{endpoint}"))
        .map_err(|_| TlsError::Endpoint(address.clone()))?
        .connect_timeout(Duration::from_secs(10))
        // A control plane that vanished without a FIN is noticed, and dialled anew.
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(8 << 20);
    let connector = TlsConnector::from(Arc::new(config));
    let dialler = tower::service_fn(move |_: hyper::Uri| {
        let (connector, address) = (connector.clone(), address.clone());
        async move {
            let stream = TcpStream::connect(&address).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::try_from(SERVER_NAME).map_err(std::io::Error::other)?;
            let stream = connector.connect(name, stream).await?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    channel
        .connect_with_connector(dialler)
        .await
        .map_err(TlsError::Connect)
}

/// Trusts the one CA of the server's chain that has the fingerprint, and then as usual.
#[derive(Debug)]
struct PinnedCa {
    provider: Arc<CryptoProvider>,
    /// SHA-256 of the DER, hex.
    fingerprint: String,
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let ca = intermediates
            .iter()
            .find(|certificate| fingerprint(certificate) == self.fingerprint)
            .ok_or(CertificateError::UnknownIssuer)?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        usual.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// SHA-256 of a certificate's DER, hex.
pub(super) fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate))
}
