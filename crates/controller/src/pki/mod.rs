//! The control plane's own certificate authority: it vouches for `hearthd` towards agents, and for agents towards
//! `hearthd`. Its key and certificate are one file, so that a crash cannot leave half of it.

use std::fs::Permissions;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hearth_api::join::SERVER_NAME;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};

mod callers;
mod given;
mod issued;
mod server;
#[cfg(test)]
mod tests;

pub use callers::CallersTls;
pub use server::server_config;

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
    #[error(
        "{path} is another certificate authority than that of the database: is this the data directory of another cloud? \
         Start hearthd with an empty one"
    )]
    Other { path: PathBuf },
    #[error("{path} holds nothing that can be read as PEM")]
    Pem {
        path: PathBuf,
        source: rustls_pki_types::pem::Error,
    },
    #[error("{path} holds no certificate")]
    NoCertificate { path: PathBuf },
    #[error("the key in {key} does not go with the certificate in {chain}")]
    Pair {
        chain: PathBuf,
        key: PathBuf,
        source: rustls::Error,
    },
    #[error("making a certificate")]
    Certificate(#[from] rcgen::Error),
    #[error("setting up TLS")]
    Tls(#[from] rustls::Error),
    #[error("setting up how certificates of agents are verified")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

const DAY: Duration = Duration::from_secs(24 * 3600);
const AUTHORITY_LIFE: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// The control plane's authority.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    certificate: CertificateDer<'static>,
    /// How long certificates of hosts and of the server are valid from their issue on.
    life: Duration,
}

/// A request for a host's certificate: a public key, and the proof that the requester has its private key.
pub struct HostRequest {
    request: CertificateSigningRequestParams,
    pub public_key_hash: String,
}

impl HostRequest {
    /// Reads a PKCS#10 request (RFC 2986), PEM. Of its contents only the key counts.
    ///
    /// # Errors
    /// It is malformed, or its signature is not by its own key.
    pub fn parse(pem: &str) -> Result<Self, PkiError> {
        let request = CertificateSigningRequestParams::from_pem(pem)?;
        Ok(Self {
            public_key_hash: hash(&request.public_key.subject_public_key_info()),
            request,
        })
    }
}

impl Authority {
    /// Reads `<dir>/ca.pem`, or makes it. Certificates that it signs are valid for `life`.
    ///
    /// # Errors
    /// The file cannot be read or written, or is damaged.
    pub fn open(dir: &Path, life: Duration) -> Result<Self, PkiError> {
        let text = match Self::read(dir)? {
            Some(text) => text,
            None => {
                let text = Self::generate()?;
                Self::save(dir, &text)?;
                text
            }
        };
        Self::parse(&text, life).ok_or(PkiError::Damaged { path: file(dir) })
    }

    /// What is in `<dir>/ca.pem`: the key and the certificate.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(dir: &Path) -> Result<Option<String>, PkiError> {
        let path = file(dir);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(PkiError::File {
                doing: "reading",
                path,
                source,
            }),
        }
    }

    /// Makes the authority of those that share a database this directory's.
    ///
    /// # Errors
    /// The directory has another, or cannot be written.
    pub fn adopt(dir: &Path, text: &str) -> Result<(), PkiError> {
        match Self::read(dir)? {
            None => Self::save(dir, text),
            Some(own) if own == text => Ok(()),
            Some(_) => Err(PkiError::Other { path: file(dir) }),
        }
    }

    fn parse(text: &str, life: Duration) -> Option<Self> {
        let key = KeyPair::from_pem(text).ok()?;
        let certificate = CertificateDer::from_pem_slice(text.as_bytes()).ok()?.into_owned();
        let begin = text.find("-----BEGIN CERTIFICATE-----")?;
        Some(Self {
            issuer: Issuer::from_ca_cert_der(&certificate, key).ok()?,
            certificate_pem: text.get(begin..)?.to_owned(),
            certificate,
            life,
        })
    }

    /// A new authority: its key and its certificate, PEM.
    ///
    /// # Errors
    /// The certificate cannot be made.
    pub fn generate() -> Result<String, PkiError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named("Hearth control plane");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        valid_for(&mut params, SystemTime::now(), AUTHORITY_LIFE);
        let certificate = params.self_signed(&key)?;
        Ok(format!("{}{}", key.serialize_pem(), certificate.pem()))
    }

    fn save(dir: &Path, text: &str) -> Result<(), PkiError> {
        let path = file(dir);
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .and_then(|()| write_atomically(&path, text.as_bytes(), 0o600))
            .map_err(|source| PkiError::File {
                doing: "writing",
                path,
                source,
            })
    }

    /// Writes the certificate, without the key, where everybody may read it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn publish(&self, path: &Path) -> Result<(), PkiError> {
        let written = write_atomically(path, self.certificate_pem.as_bytes(), 0o644);
        written.map_err(|source| PkiError::File {
            doing: "writing",
            path: path.to_owned(),
            source,
        })
    }

    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// SHA-256 of the certificate, hex: what join tokens carry.
    pub fn fingerprint(&self) -> String {
        hex::encode(Sha256::digest(&self.certificate))
    }

    /// Signs the key of a request. The subject is `host_id`.
    ///
    /// # Errors
    /// The certificate cannot be made.
    pub fn sign_host(&self, host_id: &str, request: HostRequest) -> Result<String, PkiError> {
        let mut request = request.request;
        let mut params = CertificateParams::default();
        params.distinguished_name = named(host_id);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.serial_number = Some(serial());
        valid_for(&mut params, SystemTime::now(), self.life);
        request.params = params;
        Ok(request.signed_by(&self.issuer)?.pem())
    }
}

/// What a certificate that the TLS layer has verified says of its holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostCertificate {
    /// The common name.
    pub host_id: String,
    pub public_key_hash: String,
    pub not_after: SystemTime,
}

impl HostCertificate {
    /// `None` for a certificate that this authority does not make.
    pub fn read(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let name = parsed.subject().iter_common_name().next()?.as_str().ok()?;
        let not_after = u64::try_from(parsed.validity().not_after.timestamp()).ok()?;
        Some(Self {
            host_id: name.to_owned(),
            public_key_hash: hash(parsed.public_key().raw),
            not_after: SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(not_after))?,
        })
    }
}

fn file(dir: &Path) -> PathBuf {
    dir.join("ca.pem")
}

/// Whether a certificate that the TLS layer has verified is of a `hearthd`. Hosts have ids of their own shape.
pub fn is_peer(certificate: &CertificateDer<'_>) -> bool {
    HostCertificate::read(certificate)
        .is_some_and(|read| read.host_id == SERVER_NAME && SystemTime::now() < read.not_after)
}

/// SHA-256 of a SubjectPublicKeyInfo, hex.
fn hash(subject_public_key_info: &[u8]) -> String {
    hex::encode(Sha256::digest(subject_public_key_info))
}

/// Unique without a counter (RFC 5280, 4.1.2.2): positive, up to 20 octets.
fn serial() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::random();
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// Valid from a while before now, for hosts whose clocks are behind: a day, or a tenth of a shorter life.
fn valid_for(params: &mut CertificateParams, now: SystemTime, life: Duration) {
    let skew = DAY.min(life / 10);
    params.not_before = now.checked_sub(skew).unwrap_or(SystemTime::UNIX_EPOCH).into();
    params.not_after = now.checked_add(life).unwrap_or(now).into();
}

/// Replaces a file as a whole: after a crash there is the old one or the new one. It has this mode whatever the umask.
pub fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let _ = std::fs::remove_file(&temporary);
    let mut file = std::fs::File::options()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    match path.parent() {
        Some(dir) => std::fs::File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}
