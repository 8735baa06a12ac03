//! A server's certificate of the cloud's own authority, which renews itself while `hearthd` runs.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use hearth_api::join::SERVER_NAME;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::{Authority, PkiError, named, serial, valid_for};

/// Names and addresses in a certificate.
const MAX_NAMES: usize = 64;

/// It is made anew, with a new key, by the first handshake after two thirds of its life.
#[derive(Debug)]
pub struct IssuedCertificate {
    authority: Arc<Authority>,
    issued: Mutex<Issued>,
}

#[derive(Debug)]
struct Issued {
    at: SystemTime,
    names: Vec<String>,
    key: Arc<CertifiedKey>,
}

impl Issued {
    /// The clock may also have been set back since: then the certificate is not valid yet.
    fn is_due(&self, now: SystemTime, life: Duration) -> bool {
        now.duration_since(self.at)
            .map_or(true, |age| age >= life / 3 * 2)
    }
}

impl IssuedCertificate {
    /// # Errors
    /// A name is none of DNS, or the certificate cannot be made.
    pub fn new(authority: Arc<Authority>, names: Vec<String>) -> Result<Self, PkiError> {
        let issued = Mutex::new(authority.issue_server(SystemTime::now(), names)?);
        Ok(Self { authority, issued })
    }

    /// Has an address of this machine in the certificate from now on: clients call it there.
    pub fn cover(&self, address: IpAddr) {
        let name = address.to_string();
        let mut issued = self.lock();
        if !issued.names.contains(&name) && issued.names.len() < MAX_NAMES {
            let mut names = issued.names.clone();
            names.push(name);
            self.renew(&mut issued, SystemTime::now(), names);
        }
    }

    fn at(&self, now: SystemTime) -> Arc<CertifiedKey> {
        let mut issued = self.lock();
        if issued.is_due(now, self.authority.life) {
            let names = issued.names.clone();
            self.renew(&mut issued, now, names);
        }
        Arc::clone(&issued.key)
    }

    fn renew(&self, issued: &mut Issued, now: SystemTime, names: Vec<String>) {
        match self.authority.issue_server(now, names) {
            Ok(new) => *issued = new,
            Err(error) => tracing::error!(%error, "renewing a certificate of hearthd"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Issued> {
        self.issued.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResolvesServerCert for IssuedCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.at(SystemTime::now()))
    }
}

impl Authority {
    /// The chain ends with the authority itself, for agents that know its fingerprint alone.
    fn issue_server(&self, now: SystemTime, names: Vec<String>) -> Result<Issued, PkiError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names.clone())?;
        params.distinguished_name = named(SERVER_NAME);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial());
        valid_for(&mut params, now, self.life);
        let leaf = params.signed_by(&key, &self.issuer)?;
        let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signing = aws_lc_rs::sign::any_ecdsa_type(&private)?;
        let chain = vec![leaf.der().clone(), self.certificate.clone()];
        Ok(Issued {
            at: now,
            names,
            key: Arc::new(CertifiedKey::new(chain, signing)),
        })
    }
}

pub(super) fn hostname() -> Option<String> {
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
        let server = IssuedCertificate::new(authority, vec!["localhost".into()]).unwrap();
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

    #[test]
    fn an_address_at_which_it_is_called_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::open(dir.path(), LIFE).unwrap());
        let server = IssuedCertificate::new(authority, vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
        let now = SystemTime::now();
        let first = server.at(now);
        server.cover("127.0.0.1".parse().unwrap());
        assert!(Arc::ptr_eq(&first, &server.at(now)), "it has it");
        for number in 0..=u8::MAX {
            server.cover(IpAddr::from([192, 0, 2, number]));
        }
        let certificate = server.at(now);
        let (_, parsed) =
            x509_parser::parse_x509_certificate(certificate.end_entity_cert().unwrap()).unwrap();
        let names = parsed.subject_alternative_name().unwrap().unwrap();
        assert_eq!(names.value.general_names.len(), MAX_NAMES);
        // As OpenSSL demands it of clients in its strict mode, which Python has switched on (RFC 5280, 4.2.1.1).
        let oid = x509_parser::oid_registry::OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER;
        assert!(parsed.get_extension_unique(&oid).unwrap().is_some());
    }
}
