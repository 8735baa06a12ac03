//! Where `hearthd` listens: a Unix socket. Membership in the socket's group is what admits a caller, and the caller
//! checks in turn that no other local process answers in hearthd's place.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::{Gid, Group, Uid, User};
use tokio::net::UnixStream;

/// The socket of the `hearthd` that `scripts/up` starts.
pub const DEFAULT_SOCKET: &str = "/run/hearthd/api.sock";

/// [`DEFAULT_SOCKET`] as an endpoint.
pub const DEFAULT_ENDPOINT: &str = "unix:/run/hearthd/api.sock";

/// The environment variable that names another endpoint.
pub const ENDPOINT_VARIABLE: &str = "HEARTH_ENDPOINT";

/// The group whose members may call, where the socket itself does not say.
const GROUP: &str = "hearth";

/// How often, and in between how long, connecting is tried while too many others do.
const BUSY_TRIES: u32 = 200;
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// Write permission for the group and for others.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Why there is no connection to `hearthd`. Each is one sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error(
        "'{0}' is no endpoint: an endpoint is https://HOST:PORT, or unix:PATH with an absolute path, as in {DEFAULT_ENDPOINT}"
    )]
    Malformed(String),
    #[error("'{0}' would send credentials over a network in plain text: begin it with https")]
    Plain(String),
    #[error("Could not connect to the endpoint URL: \"{url}\"")]
    Unreachable { url: String, source: io::Error },
    #[error("Connect timeout on endpoint URL: \"{url}\"")]
    Late { url: String },
    #[error("SSL validation failed for {url} {source}")]
    Untrusted { url: String, source: io::Error },
    #[error("Could not find a suitable TLS CA certificate bundle, invalid path: {path} ({problem})")]
    Bundle { path: PathBuf, problem: String },
    #[error("setting up TLS")]
    Tls(#[source] rustls::Error),
    #[error("hearthd does not run: nothing listens at {path} (`sudo scripts/up` starts hearthd)")]
    NotRunning { path: PathBuf, source: io::Error },
    #[error("{user} may not call hearthd: run `sudo usermod -aG {group} {user}` and log in again")]
    NotInGroup {
        user: String,
        group: String,
        source: io::Error,
    },
    #[error("{path} belongs to root alone: run this with sudo")]
    RootOnly { path: PathBuf, source: io::Error },
    #[error(
        "{path} is served by user {uid}, who is neither root, nor you, nor the owner of a directory that only its owner can write: this is not hearthd"
    )]
    Impostor { path: PathBuf, uid: u32 },
    #[error("connecting to {path}")]
    Io { path: PathBuf, source: io::Error },
    #[error("speaking HTTP/2 with hearthd")]
    Transport(#[source] tonic::transport::Error),
}

/// The path of the socket in an endpoint such as [`DEFAULT_ENDPOINT`].
///
/// # Errors
/// [`ConnectError::Malformed`].
pub fn socket_path(endpoint: &str) -> Result<PathBuf, ConnectError> {
    let path = endpoint.strip_prefix("unix:").map(Path::new);
    match path {
        Some(path) if path.is_absolute() => Ok(path.to_owned()),
        _ => Err(ConnectError::Malformed(endpoint.to_owned())),
    }
}

/// Connects to `hearthd`, and checks who it is before a byte is sent.
///
/// # Errors
/// Nobody listens, the caller is not in the socket's group, or somebody else listens.
pub(crate) async fn connect(path: &Path) -> Result<UnixStream, ConnectError> {
    let mut tries = 0..BUSY_TRIES;
    let stream = loop {
        match UnixStream::connect(path).await {
            Ok(stream) => break stream,
            // The queue of connections that hearthd has yet to accept is full.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && tries.next().is_some() => {
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            Err(error) => return Err(refused(path, error)),
        }
    };
    // SO_PEERCRED: the credentials at the time of listen(2).
    let peer = stream.peer_cred().map_err(|source| ConnectError::Io {
        path: path.to_owned(),
        source,
    })?;
    if is_trusted(path, peer.uid()) {
        Ok(stream)
    } else {
        Err(ConnectError::Impostor {
            path: path.to_owned(),
            uid: peer.uid(),
        })
    }
}

/// Root could do anything anyway, and the caller gains nothing by deceiving itself. Any other user is `hearthd`'s if
/// nobody but root could have put a socket of another user at this path.
fn is_trusted(path: &Path, uid: u32) -> bool {
    uid == 0 || uid == Uid::effective().as_raw() || is_kept_by(path, uid)
}

/// Whether the socket's directory is owned by `uid`, and it and all directories above can be changed by their owners,
/// `uid` or root, alone.
fn is_kept_by(path: &Path, uid: u32) -> bool {
    let Some(directory) = path.parent().and_then(|directory| directory.canonicalize().ok()) else {
        return false;
    };
    let safe = |directory: &Path| {
        directory.metadata().is_ok_and(|found| {
            (found.uid() == uid || found.uid() == 0) && found.mode() & WRITABLE_BY_OTHERS == 0
        })
    };
    directory.metadata().is_ok_and(|found| found.uid() == uid) && directory.ancestors().all(safe)
}

fn refused(path: &Path, source: io::Error) -> ConnectError {
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ConnectError::NotRunning {
            path: path.to_owned(),
            source,
        },
        io::ErrorKind::PermissionDenied => {
            // The directory may hide the socket.
            let group = path.metadata().ok().map(|socket| socket.gid());
            if group == Some(0) {
                return ConnectError::RootOnly {
                    path: path.to_owned(),
                    source,
                };
            }
            let found = group.and_then(|gid| Group::from_gid(Gid::from_raw(gid)).ok().flatten());
            ConnectError::NotInGroup {
                user: user_name(),
                group: found.map_or_else(|| GROUP.to_owned(), |group| group.name),
                source,
            }
        }
        _ => ConnectError::Io {
            path: path.to_owned(),
            source,
        },
    }
}

fn user_name() -> String {
    let uid = Uid::effective();
    let found = User::from_uid(uid).ok().flatten();
    found.map_or_else(|| format!("user {uid}"), |user| user.name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown};

    use super::*;

    #[test]
    fn only_unix_sockets_by_absolute_paths_are_endpoints() {
        assert_eq!(socket_path(DEFAULT_ENDPOINT).unwrap(), Path::new(DEFAULT_SOCKET));
        for endpoint in [
            "",
            "unix:",
            "unix:a/b",
            "/run/a",
            "http://127.0.0.1:7600",
            "127.0.0.1:7600",
        ] {
            assert!(
                matches!(socket_path(endpoint), Err(ConnectError::Malformed(_))),
                "{endpoint}"
            );
        }
    }

    #[test]
    fn a_stranger_is_trusted_only_where_nobody_else_can_bind() {
        if !Uid::effective().is_root() {
            eprintln!("SKIPPED: a_stranger_is_trusted_only_where_nobody_else_can_bind: not root");
            return;
        }
        // Not in /tmp, which everyone can write.
        let top = tempfile::tempdir_in("/run").unwrap();
        let directory = top.path().join("hearthd");
        std::fs::create_dir(&directory).unwrap();
        let socket = directory.join("api.sock");
        let mode =
            |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        let (hearth, stranger) = (64_001, 64_002);
        chown(&directory, Some(hearth), None).unwrap();
        mode(&directory, 0o755);
        assert!(is_trusted(&socket, hearth) && is_trusted(&socket, 0));
        assert!(!is_trusted(&socket, stranger));
        mode(&directory, 0o775);
        assert!(!is_trusted(&socket, hearth), "the group could bind");
        mode(&directory, 0o755);
        mode(top.path(), 0o1777);
        assert!(!is_trusted(&socket, hearth), "anybody could make the directory");
        mode(top.path(), 0o755);
        chown(top.path(), Some(stranger), None).unwrap();
        assert!(
            !is_trusted(&socket, hearth),
            "a stranger could replace the directory"
        );
    }
}
