//! A server's certificate that the operator gives, and replaces while `hearthd` runs.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::PkiError;

/// Between looks at the files.
const LOOK: Duration = Duration::from_secs(1);

/// A chain and its key. The first handshake after a file was replaced reads both again.
#[derive(Debug)]
pub struct GivenCertificate {
    chain: PathBuf,
    key: PathBuf,
    found: Mutex<Found>,
}

#[derive(Debug)]
struct Found {
    certificate: Arc<CertifiedKey>,
    /// Those of both files when they were read last.
    stamps: [Stamp; 2],
    looked: Instant,
}

/// What tells a file from the one before: inode, size, and time of the last change in nanoseconds.
type Stamp = Option<(u64, u64, i64, i64)>;

impl GivenCertificate {
    /// # Errors
    /// A file cannot be read, or the key is not the certificate's.
    pub fn open(chain: &Path, key: &Path) -> Result<Self, PkiError> {
        let stamps = [stamp(chain), stamp(key)];
        let found = Found {
            certificate: read(chain, key)?,
            stamps,
            looked: Instant::now(),
        };
        Ok(Self {
            chain: chain.to_owned(),
            key: key.to_owned(),
            found: Mutex::new(found),
        })
    }

    fn at(&self, now: Instant) -> Arc<CertifiedKey> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(found.looked) >= LOOK {
            found.looked = now;
            let stamps = [stamp(&self.chain), stamp(&self.key)];
            if stamps != found.stamps {
                found.stamps = stamps;
                // One of them may have been replaced before the other: the pair before serves until both have been.
                match read(&self.chain, &self.key) {
                    Ok(certificate) => {
                        found.certificate = certificate;
                        tracing::info!(certificate = %self.chain.display(), "read again");
                    }
                    Err(error) => {
                        tracing::error!(error = %hearth_log::chain(&error), "the certificate before goes on");
                    }
                }
            }
        }
        Arc::clone(&found.certificate)
    }
}

impl ResolvesServerCert for GivenCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.at(Instant::now()))
    }
}

fn stamp(path: &Path) -> Stamp {
    let found = std::fs::metadata(path).ok()?;
    Some((found.ino(), found.size(), found.ctime(), found.ctime_nsec()))
}

fn read(chain: &Path, key: &Path) -> Result<Arc<CertifiedKey>, PkiError> {
    let malformed = |path: &Path| {
        let path = path.to_owned();
        move |source| PkiError::Pem { path, source }
    };
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes(chain)?).collect();
    let certificates = certificates.map_err(malformed(chain))?;
    if certificates.is_empty() {
        return Err(PkiError::NoCertificate {
            path: chain.to_owned(),
        });
    }
    let private = PrivateKeyDer::from_pem_slice(&bytes(key)?).map_err(malformed(key))?;
    let pair = CertifiedKey::from_der(certificates, private, &aws_lc_rs::default_provider());
    let pair = pair.map_err(|source| PkiError::Pair {
        chain: chain.to_owned(),
        key: key.to_owned(),
        source,
    })?;
    Ok(Arc::new(pair))
}

fn bytes(path: &Path) -> Result<Vec<u8>, PkiError> {
    std::fs::read(path).map_err(|source| PkiError::File {
        doing: "reading",
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["cloud.example".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(dir.join("chain"), certificate.pem()).unwrap();
        std::fs::write(dir.join("key"), key.serialize_pem()).unwrap();
    }

    #[test]
    fn a_pair_that_was_replaced_is_read_again_and_half_of_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (chain, key) = (dir.path().join("chain"), dir.path().join("key"));
        assert!(matches!(
            GivenCertificate::open(&chain, &key),
            Err(PkiError::File { .. })
        ));
        write(dir.path());
        let given = GivenCertificate::open(&chain, &key).unwrap();
        let mut now = Instant::now();
        let first = given.at(now);
        let mut later = || {
            now += LOOK;
            given.at(now)
        };
        assert!(Arc::ptr_eq(&first, &later()));
        // The chain of another pair.
        let old_key = std::fs::read(&key).unwrap();
        write(dir.path());
        let new_key = std::fs::read(&key).unwrap();
        std::fs::write(&key, &old_key).unwrap();
        assert!(Arc::ptr_eq(&first, &later()));
        std::fs::remove_file(&key).unwrap();
        assert!(Arc::ptr_eq(&first, &later()));
        std::fs::write(&key, &new_key).unwrap();
        let second = later();
        assert_ne!(first.cert, second.cert);
        assert!(Arc::ptr_eq(&second, &later()));

        std::fs::write(&key, &old_key).unwrap();
        assert!(matches!(
            GivenCertificate::open(&chain, &key),
            Err(PkiError::Pair { .. })
        ));
        std::fs::write(&chain, "nothing").unwrap();
        assert!(matches!(
            GivenCertificate::open(&chain, &key),
            Err(PkiError::NoCertificate { .. })
        ));
    }
}
