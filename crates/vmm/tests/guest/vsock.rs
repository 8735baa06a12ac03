//! The host's programs that the guest's sockets lead to.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use super::monitor::vsock::{bind, device};
use super::run;

const ECHO_PORT: u32 = 7;
const DEAF_PORT: u32 = 8;

#[test]
fn vsock() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: vsock: needs root for a clone of a mount");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    serve(&directory.path().join(format!("v_{ECHO_PORT}")), |stream| {
        thread::spawn(move || io::copy(&mut &stream, &mut &stream));
    });
    let mut deaf = Vec::new();
    serve(&directory.path().join(format!("v_{DEAF_PORT}")), move |stream| {
        deaf.push(stream);
    });
    run("vsock", 70, None, |spec, fds| {
        spec.vsock = Some(device(directory.path(), fds))
    });
}

/// A program that does so with each connection, until the test ends.
fn serve(path: &Path, mut with: impl FnMut(UnixStream) + Send + 'static) {
    let listener = bind(path);
    thread::spawn(move || listener.incoming().flatten().for_each(&mut with));
}
