//! The keys of the cloud's secrets. The first lies in a file of the data directory, beside the database and never in it:
//! secrets of access keys are sealed under it, and the second key. The second is sealed in the database: what callers keep
//! for the cloud is sealed under it, such as session tokens.
//!
//! All `hearthd` that share a database have the same file. Its content never changes.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::pki::write_atomically;
use crate::seal::{Broken, SealingKey, Secret};
use crate::state::Cloud;

/// The first key's file, in the data directory.
pub const FILE: &str = "seal.key";
const MODE: u32 = 0o600;

#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    #[error("{doing} {path}")]
    File {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "{0} is missing, and secrets in the database are sealed under its key: copy it from another hearthd of this cloud or \
         from a backup"
    )]
    Missing(PathBuf),
    #[error(
        "{0} has another key than the one that secrets in the database are sealed under: copy it from another hearthd of this \
         cloud or from a backup"
    )]
    Other(PathBuf),
    #[error("{0} holds no key: copy it from another hearthd of this cloud or from a backup")]
    Damaged(PathBuf),
    #[error("{0} may be read by others than its owner: run chmod 600 on it")]
    Open(PathBuf),
    #[error("sealing")]
    Seal(#[from] Broken),
}

/// Both keys.
#[derive(Debug)]
pub struct Vault {
    /// Of the file.
    pub root: SealingKey,
    /// Of the database.
    pub cloud: SealingKey,
}

impl Vault {
    /// For a cloud whose secrets are sealed.
    ///
    /// # Errors
    /// The file is not there, cannot be read, or has another key.
    pub fn open(dir: &Path, cloud: &Cloud) -> Result<Self, VaultError> {
        let root = read(dir)?.ok_or_else(|| VaultError::Missing(dir.join(FILE)))?;
        let opened = cloud.seal.open(&root, Cloud::SEAL);
        let opened = opened.map_err(|_| VaultError::Other(dir.join(FILE)))?;
        Ok(Self {
            cloud: SealingKey::read(&opened)?,
            root,
        })
    }
}

/// The first key, for a cloud that has nothing sealed yet. It is durable when this returns.
///
/// # Errors
/// The file cannot be read or written.
pub fn root_of_new(dir: &Path) -> Result<SealingKey, VaultError> {
    if let Some(root) = read(dir)? {
        return Ok(root);
    }
    let text = SealingKey::generate();
    let path = dir.join(FILE);
    let written = write_atomically(&path, format!("{}\n", text.0).as_bytes(), MODE);
    written.map_err(|source| VaultError::File {
        doing: "writing",
        path,
        source,
    })?;
    Ok(SealingKey::read(&text)?)
}

fn read(dir: &Path) -> Result<Option<SealingKey>, VaultError> {
    let path = dir.join(FILE);
    let found = std::fs::metadata(&path).and_then(|found| {
        let text = std::fs::read_to_string(&path)?;
        Ok((found.permissions().mode(), text))
    });
    match found {
        Ok((mode, _)) if mode & 0o077 != 0 => Err(VaultError::Open(path)),
        Ok((_, text)) => {
            let key = SealingKey::read(&Secret(text.trim().to_owned()));
            key.map(Some).map_err(|_| VaultError::Damaged(path))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(VaultError::File {
            doing: "reading",
            path,
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::SealedSecret;

    #[test]
    fn the_file_is_made_once_and_no_other_takes_its_place() {
        let (own, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = root_of_new(own.path()).unwrap();
        let path = own.path().join(FILE);
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        let cloud = Cloud {
            owner_id: "1".into(),
            home_region: String::new(),
            epoch: String::new(),
            seal: SealedSecret::seal(&root, Cloud::SEAL, &SealingKey::generate()).unwrap(),
        };
        Vault::open(own.path(), &cloud).unwrap();
        root_of_new(own.path()).unwrap();
        Vault::open(own.path(), &cloud).unwrap();

        let refused = |dir: &Path| Vault::open(dir, &cloud).unwrap_err();
        assert!(matches!(refused(other.path()), VaultError::Missing(_)));
        root_of_new(other.path()).unwrap();
        assert!(matches!(refused(other.path()), VaultError::Other(_)));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(refused(own.path()), VaultError::Open(_)));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "half").unwrap();
        assert!(matches!(refused(own.path()), VaultError::Damaged(_)));
        assert!(root_of_new(own.path()).is_err(), "a damaged key was replaced");
    }
}
