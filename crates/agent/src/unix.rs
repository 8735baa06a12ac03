//! Unix sockets by way of /proc: `sun_path` holds 108 bytes, a data directory's path may be longer.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use tokio::net::UnixStream;

/// # Errors
/// As of `open` and `bind`.
pub(crate) fn bind(dir: &Path, name: &str) -> io::Result<std::os::unix::net::UnixListener> {
    let dir = File::open(dir)?;
    std::os::unix::net::UnixListener::bind(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()))
}

/// # Errors
/// As of `open` and `connect`.
pub(crate) async fn connect(dir: &Path, name: &str) -> io::Result<UnixStream> {
    let dir = File::open(dir)?;
    UnixStream::connect(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd())).await
}
