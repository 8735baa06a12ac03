//! Who this host is: a key that never leaves it, a certificate, and the CA that both sides trust.
//!
//! Made once, by [`enroll`], from a join token; `pki/` is whole or absent. The certificate and its key are one file, so
//! that a renewal ([`renew()`]) replaces both or neither.

mod certificate;
mod enroll;
mod renew;
mod tls;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::paths::DataDir;

pub use certificate::Validity;
pub use enroll::{EnrollError, enroll};
pub use renew::{RenewError, renew};
pub use tls::{TlsError, connect};

/// What `pki/` holds.
#[derive(Clone)]
pub struct Identity {
    /// `h-` and 17 hex digits.
    pub host_id: String,
    /// Where the control plane is dialled: each `host:port`.
    pub endpoints: Vec<String>,
    /// Where the host was enrolled to be.
    pub availability_zone: String,
    key: String,
    certificate: String,
    ca_certificate: String,
}

#[derive(Debug, thiserror::Error)]
#[error("{doing} {path}")]
pub struct IdentityError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// The host's certificate, followed by its key.
const CERTIFICATE: &str = "host.pem";
/// Where the control plane is dialled: a `host:port` on each line.
const CONTROL_PLANE: &str = "control-plane";
/// Where the key was before certificates were renewed.
const OLD_KEY: &str = "host.key";
const KEY_BEGINS: &str = "-----BEGIN PRIVATE KEY-----";

impl Identity {
    /// The identity of an enrolled host, if this is one.
    ///
    /// # Errors
    /// `pki/` is there but cannot be read.
    pub fn load(dir: &DataDir) -> Result<Option<Identity>, IdentityError> {
        let pki = dir.pki();
        if !pki.exists() {
            return Ok(None);
        }
        let read = |name: &str| {
            let path = pki.join(name);
            std::fs::read_to_string(&path).map_err(|source| IdentityError {
                doing: "reading",
                path,
                source,
            })
        };
        let mut certificate = read(CERTIFICATE)?;
        let key = match certificate.find(KEY_BEGINS) {
            Some(at) => certificate.split_off(at),
            None => read(OLD_KEY)?,
        };
        Ok(Some(Identity {
            host_id: read("host-id")?.trim().to_owned(),
            endpoints: read(CONTROL_PLANE)?.lines().map(str::to_owned).collect(),
            availability_zone: read("availability-zone")?.trim().to_owned(),
            key,
            certificate,
            ca_certificate: read("ca.pem")?,
        }))
    }

    /// Under another name first: an agent that was killed meanwhile enrols again.
    fn save(&self, dir: &DataDir) -> Result<(), IdentityError> {
        let half_made = dir.root().join(".pki");
        let fail = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| IdentityError { doing, path, source }
        };
        if half_made.exists() {
            std::fs::remove_dir_all(&half_made).map_err(fail("sweeping", &half_made))?;
        }
        std::fs::create_dir(&half_made).map_err(fail("making", &half_made))?;
        for (name, text) in [
            ("host-id", &self.host_id),
            (CONTROL_PLANE, &self.endpoints.join("\n")),
            ("availability-zone", &self.availability_zone),
            (CERTIFICATE, &self.certificate_and_key()),
            ("ca.pem", &self.ca_certificate),
        ] {
            let path = half_made.join(name);
            write_private(&path, text.as_bytes()).map_err(fail("writing", &path))?;
        }
        let pki = dir.pki();
        std::fs::rename(&half_made, &pki)
            .and_then(|()| std::fs::File::open(dir.root())?.sync_all())
            .map_err(fail("naming", &pki))
    }

    /// Replaces the certificate and its key in `pki/`: after a crash there are the old ones or the new ones.
    fn save_certificate(&self, dir: &DataDir) -> Result<(), IdentityError> {
        let pki = dir.pki();
        let (path, new) = (pki.join(CERTIFICATE), pki.join("host.pem.new"));
        let fail = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| IdentityError { doing, path, source }
        };
        write_private(&new, self.certificate_and_key().as_bytes()).map_err(fail("writing", &new))?;
        std::fs::rename(&new, &path)
            .and_then(|()| std::fs::File::open(&pki)?.sync_all())
            .map_err(fail("replacing", &path))?;
        let old = pki.join(OLD_KEY);
        match std::fs::remove_file(&old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fail("removing", &old)(error)),
            _ => Ok(()),
        }
    }

    /// Replaces what `pki/` says of where the control plane is dialled.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save_endpoints(dir: &DataDir, endpoints: &[String]) -> Result<(), IdentityError> {
        let pki = dir.pki();
        let (path, new) = (pki.join(CONTROL_PLANE), pki.join("control-plane.new"));
        write_private(&new, endpoints.join("\n").as_bytes())
            .and_then(|()| std::fs::rename(&new, &path))
            .and_then(|()| std::fs::File::open(&pki)?.sync_all())
            .map_err(|source| IdentityError {
                doing: "writing",
                path,
                source,
            })
    }

    fn certificate_and_key(&self) -> String {
        format!("{}{}", self.certificate, self.key)
    }

    /// When the certificate is valid, and when it is to be renewed.
    ///
    /// # Errors
    /// The certificate is malformed.
    pub fn validity(&self) -> Result<Validity, TlsError> {
        Validity::read(&self.certificate)
    }
}

/// Writes a secret: 0600 from its first byte on, synced.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
