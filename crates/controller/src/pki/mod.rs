//! The control plane's own certificate authority: it vouches for `hearthd` towards agents, and for agents towards
//! `hearthd`. Its key and certificate are one file, so that a crash cannot leave half of it.

use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use hearth_api::join::SERVER_NAME;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};

#[cfg(test)]
mod tests;

#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("{doing} {path}")]
    File {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{path} holds no certificate authority; put it back, or remove it and let every agent join anew")]
    Damaged { path: PathBuf },
    #[error("making a certificate")]
    Certificate(#[from] rcgen::Error),
}

/// Years that the authority lasts, and what it signs. The server's own certificate is new at each start.
const AUTHORITY_YEARS: i32 = 30;
const LEAF_YEARS: i32 = 10;

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    certificate: CertificateDer<'static>,
}

/// A certificate chain and its key, PEM.
pub struct ServerIdentity {
    pub chain: String,
    pub key: String,
}

impl Authority {
    /// Reads `<dir>/ca.pem`, or makes it.
    ///
    /// # Errors
    /// The file cannot be read or written, or is damaged.
    pub fn open(dir: &Path) -> Result<Self, PkiError> {
        let path = dir.join("ca.pem");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::create(dir, &path)?,
            Err(source) => {
                return Err(PkiError::File {
                    doing: "reading",
                    path,
                    source,
                });
            }
        };
        Self::parse(&text).ok_or(PkiError::Damaged { path })
    }

    fn parse(text: &str) -> Option<Self> {
        let key = KeyPair::from_pem(text).ok()?;
        let certificate = CertificateDer::from_pem_slice(text.as_bytes()).ok()?.into_owned();
        let begin = text.find("-----BEGIN CERTIFICATE-----")?;
        Some(Self {
            issuer: Issuer::from_ca_cert_der(&certificate, key).ok()?,
            certificate_pem: text.get(begin..)?.to_owned(),
            certificate,
        })
    }

    fn create(dir: &Path, path: &Path) -> Result<String, PkiError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named("Hearth control plane");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        lasting(&mut params, AUTHORITY_YEARS);
        let certificate = params.self_signed(&key)?;
        let text = format!("{}{}", key.serialize_pem(), certificate.pem());
        let failed = |source| PkiError::File {
            doing: "writing",
            path: path.to_owned(),
            source,
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(failed)?;
        write_atomically(path, text.as_bytes(), 0o600).map_err(failed)?;
        Ok(text)
    }

    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// SHA-256 of the certificate, hex: what join tokens carry.
    pub fn fingerprint(&self) -> String {
        hex::encode(Sha256::digest(&self.certificate))
    }

    /// What `hearthd` shows to agents. The chain ends with the authority itself, for those who know its fingerprint
    /// alone.
    ///
    /// # Errors
    /// The certificate cannot be made.
    pub fn server_identity(&self) -> Result<ServerIdentity, PkiError> {
        let key = KeyPair::generate()?;
        let mut names = vec![SERVER_NAME.to_owned(), "localhost".into(), "127.0.0.1".into()];
        names.extend(hostname());
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = named(SERVER_NAME);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        lasting(&mut params, LEAF_YEARS);
        let leaf = params.signed_by(&key, &self.issuer)?;
        Ok(ServerIdentity {
            chain: format!("{}{}", leaf.pem(), self.certificate_pem),
            key: key.serialize_pem(),
        })
    }

    /// Signs a host's key. Of the request only the key counts: the subject is `host_id`.
    ///
    /// # Errors
    /// The request is no PKCS#10 with a valid signature of its own.
    pub fn sign_host(&self, host_id: &str, request_pem: &str) -> Result<String, PkiError> {
        let mut request = CertificateSigningRequestParams::from_pem(request_pem)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named(host_id);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        lasting(&mut params, LEAF_YEARS);
        request.params = params;
        Ok(request.signed_by(&self.issuer)?.pem())
    }
}

/// The common name of a certificate that the TLS layer has verified.
pub fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let name = parsed.subject().iter_common_name().next()?.as_str().ok()?;
    Some(name.to_owned())
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// From yesterday, for hosts whose clocks are behind.
fn lasting(params: &mut CertificateParams, years: i32) {
    let yesterday = jiff::Zoned::now()
        .saturating_sub(jiff::Span::new().days(1))
        .date();
    let date = |extra: i32| {
        let (month, day) = (yesterday.month().unsigned_abs(), yesterday.day().unsigned_abs());
        // The 29th of February has no other year's.
        rcgen::date_time_ymd(i32::from(yesterday.year()) + extra, month, day.min(28))
    };
    params.not_before = date(0);
    params.not_after = date(years);
}

fn hostname() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();
    (!name.is_empty() && name.is_ascii()).then(|| name.to_owned())
}

/// Replaces a file as a whole: after a crash there is the old one or the new one.
pub fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let _ = std::fs::remove_file(&temporary);
    let mut file = std::fs::File::options()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    match path.parent() {
        Some(dir) => std::fs::File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}
