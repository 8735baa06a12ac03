//! TLS towards agents: the server's certificate, which renews itself while `hearthd` runs, and the demand that clients
//! which show a certificate show one of the authority.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hearth_api::join::SERVER_NAME;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

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
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(ServerCertificate::new(Arc::clone(authority))?));
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// The server's certificate. It is made anew, with a new key, by the first handshake after two thirds of its life.
#[derive(Debug)]
struct ServerCertificate {
    authority: Arc<Authority>,
    issued: Mutex<Issued>,
}

#[derive(Debug)]
struct Issued {
    at: SystemTime,
    key: Arc<CertifiedKey>,
}

impl Issued {
    /// The clock may also have been set back since: then the certificate is not valid yet.
    fn is_due(&self, now: SystemTime, life: Duration) -> bool {
        now.duration_since(self.at)
            .map_or(true, |age| age >= life / 3 * 2)
    }
}

impl ServerCertificate {
    fn new(authority: Arc<Authority>) -> Result<Self, PkiError> {
        let issued = Mutex::new(authority.issue_server(SystemTime::now())?);
        Ok(Self { authority, issued })
    }

    fn at(&self, now: SystemTime) -> Arc<CertifiedKey> {
        let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        if issued.is_due(now, self.authority.life) {
            match self.authority.issue_server(now) {
                Ok(new) => *issued = new,
                Err(error) => tracing::error!(%error, "renewing the certificate that agents see"),
            }
        }
        Arc::clone(&issued.key)
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.at(SystemTime::now()))
    }
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

    /// The chain ends with the authority itself, for agents that know its fingerprint alone.
    fn issue_server(&self, now: SystemTime) -> Result<Issued, PkiError> {
        let key = KeyPair::generate()?;
        let mut names = vec![SERVER_NAME.to_owned(), "localhost".into(), "127.0.0.1".into()];
        names.extend(hostname());
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = named(SERVER_NAME);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.serial_number = Some(serial());
        valid_for(&mut params, now, self.life);
        let leaf = params.signed_by(&key, &self.issuer)?;
        let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signing = aws_lc_rs::sign::any_ecdsa_type(&private)?;
        let chain = vec![leaf.der().clone(), self.certificate.clone()];
        Ok(Issued {
            at: now,
            key: Arc::new(CertifiedKey::new(chain, signing)),
        })
    }
}

fn hostname() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();
    (!name.is_empty() && name.is_ascii()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_secs(90 * 24 * 3600);

    #[test]
    fn the_servers_certificate_is_renewed_while_it_runs() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::open(dir.path(), LIFE).unwrap());
        let server = ServerCertificate::new(authority).unwrap();
        let start = SystemTime::now();
        let first = server.at(start);
        assert!(Arc::ptr_eq(&first, &server.at(start + LIFE / 2)));
        let second = server.at(start + LIFE / 4 * 3);
        assert_ne!(
            first.end_entity_cert().unwrap(),
            second.end_entity_cert().unwrap()
        );
        assert!(
            Arc::ptr_eq(&second, &server.at(start + LIFE)),
            "renewed again too soon"
        );
        let (_, parsed) = x509_parser::parse_x509_certificate(second.end_entity_cert().unwrap()).unwrap();
        let end = (start + LIFE / 4 * 7)
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap();
        assert!(
            parsed
                .validity()
                .not_after
                .timestamp()
                .abs_diff(end.as_secs() as i64)
                < 10
        );
        // The clock of a machine without a battery is set after the start, forward or back.
        let back = start - LIFE;
        let third = server.at(back);
        assert_ne!(
            third.end_entity_cert().unwrap(),
            second.end_entity_cert().unwrap()
        );
    }
}
