//! The host's programs that the guest's sockets lead to.

use std::fs::Permissions;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

use hearth_vmm::spec::VsockSpec;

use super::monitor::Inherited;
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

/// In jail the monitor is another user, which must be let in.
fn device(directory: &Path, fds: &mut Inherited) -> VsockSpec {
    std::fs::set_permissions(directory, Permissions::from_mode(0o755)).unwrap();
    VsockSpec {
        guest_cid: 42,
        listener_fd: fds.give(bind(&directory.join("v"))),
        directory_fd: fds.give(clone_of_mount(directory)),
        name: "v".into(),
    }
}

fn bind(path: &Path) -> UnixListener {
    let listener = UnixListener::bind(path).unwrap();
    std::fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
    listener
}

/// The directory as a mount of its own, above which there is nothing.
fn clone_of_mount(directory: &Path) -> OwnedFd {
    const OPEN_TREE_CLONE: libc::c_int = 1;
    let path = std::ffi::CString::new(directory.to_str().unwrap()).unwrap();
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC;
    // SAFETY: the kernel reads a string that ends with a zero.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    assert!(fd >= 0, "open_tree: {}", io::Error::last_os_error());
    // SAFETY: the descriptor is new.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}
