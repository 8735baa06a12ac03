//! The API's Unix socket. The kernel admits root, the socket's owner and its group, and the directory is one in which no
//! other user can put a socket, whether `hearthd` runs or not.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::Uid;
use tokio::net::UnixListener;

/// connect(2) needs write permission.
const SOCKET_MODE: u32 = 0o660;
/// Members of the group need to look the socket up, so that they are told what they lack.
const DIRECTORY_MODE: u32 = 0o755;

#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("{doing} {path}")]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{0}: a hearthd listens there already")]
    InUse(PathBuf),
    #[error(
        "{0} must be owned by the user that hearthd runs as, or by root, and writable by its owner alone: otherwise others could listen in hearthd's place"
    )]
    OpenDirectory(PathBuf),
    #[error("--socket {0}: name a file in a directory")]
    NoDirectory(PathBuf),
}

/// Listens at `path`, for the process's user and group. A socket that a `hearthd` before left there is replaced.
///
/// # Errors
/// Somebody listens there, the directory cannot be made or is not safe, or the socket cannot be made.
pub fn listen(path: &Path) -> Result<UnixListener, SocketError> {
    let io = |doing: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| SocketError::Io { doing, path, source }
    };
    let directory = path
        .parent()
        .filter(|directory| directory.is_absolute())
        .ok_or_else(|| SocketError::NoDirectory(path.to_owned()))?;
    if !directory.exists() {
        DirBuilder::new()
            .mode(DIRECTORY_MODE)
            .create(directory)
            .and_then(|()| std::fs::set_permissions(directory, Permissions::from_mode(DIRECTORY_MODE)))
            .map_err(io("making", directory))?;
    }
    let found = directory.metadata().map_err(io("looking at", directory))?;
    let owned = found.uid() == 0 || found.uid() == Uid::effective().as_raw();
    if !owned || found.mode() & 0o022 != 0 {
        return Err(SocketError::OpenDirectory(directory.to_owned()));
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(SocketError::InUse(path.to_owned()));
    }
    // Under another name first: at `path` there is never a socket with other permissions.
    let unfinished = path.with_extension("new");
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io("removing", &unfinished)(error));
        }
        _ => {}
    }
    let listener = UnixListener::bind(&unfinished).map_err(io("listening at", &unfinished))?;
    std::fs::set_permissions(&unfinished, Permissions::from_mode(SOCKET_MODE))
        .map_err(io("setting permissions of", &unfinished))?;
    std::fs::rename(&unfinished, path).map_err(io("renaming to", path))?;
    Ok(listener)
}
