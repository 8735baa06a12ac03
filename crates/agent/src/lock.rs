//! One agent per data directory.
//!
//! A POSIX record lock and not `flock`: it belongs to the process alone, so that a monitor's fork does not
//! carry it on for the moment before its exec.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{FlockOperation, fcntl_lock};

use crate::paths::DataDir;

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("another hearth-agent works in {0}: stop it first, or give this one a --data-dir of its own")]
    Held(PathBuf),
    #[error("locking {path}")]
    Io { path: PathBuf, source: std::io::Error },
}

/// Held until dropped. The file must not be opened a second time: closing that would end the lock.
#[derive(Debug)]
pub struct Lock {
    _file: OwnedFd,
}

/// # Errors
/// Another process holds it.
pub fn take(dir: &DataDir) -> Result<Lock, LockError> {
    let path = dir.lock();
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|source| LockError::Io {
            path: path.clone(),
            source,
        })?;
    match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Lock { _file: file.into() }),
        Err(rustix::io::Errno::ACCESS | rustix::io::Errno::AGAIN) => {
            Err(LockError::Held(dir.root().to_owned()))
        }
        Err(errno) => Err(LockError::Io {
            path,
            source: errno.into(),
        }),
    }
}
