//! TLS towards agents, and of a follower towards the leader: clients which show a certificate show one of the authority.

use std::sync::Arc;
use std::time::SystemTime;

use hearth_api::join::SERVER_NAME;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::issued::{IssuedCertificate, hostname};
use super::{Authority, PkiError, named, serial, valid_for};

/// How `hearthd` speaks TLS with agents. A client may come without a certificate, as those do that enrol.
///
/// # Errors
/// The server's certificate cannot be made.
pub fn server_config(authority: &Arc<Authority>) -> Result<ServerConfig, PkiError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.clone())?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()?;
    let mut names = vec![SERVER_NAME.to_owned(), "localhost".into(), "127.0.0.1".into()];
    names.extend(hostname());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(IssuedCertificate::new(Arc::clone(authority), names)?));
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

impl Authority {
    /// How a follower speaks TLS with the leader: each shows that it is a `hearthd` of this cloud.
    ///
    /// # Errors
    /// The certificate cannot be made.
    pub fn peer_config(&self) -> Result<ClientConfig, PkiError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named(SERVER_NAME);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(serial());
        valid_for(&mut params, SystemTime::now(), self.life);
        let leaf = params.signed_by(&key, &self.issuer)?;
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone())?;
        let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![leaf.der().clone()], private)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}
