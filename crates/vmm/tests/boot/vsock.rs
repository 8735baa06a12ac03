//! A vsock device and the host's sockets that it leads to.

use std::fs::Permissions;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use hearth_vmm::spec::VsockSpec;

use super::Inherited;

/// One whose socket is `v` in the directory, and which reaches the sockets `v_PORT` there. In jail the monitor is
/// another user, which must be let in.
pub fn device(directory: &Path, fds: &mut Inherited) -> VsockSpec {
    std::fs::set_permissions(directory, Permissions::from_mode(0o755)).unwrap();
    VsockSpec {
        guest_cid: 42,
        listener_fd: fds.give(bind(&directory.join("v"))),
        directory_fd: fds.give(clone_of_mount(directory)),
        name: "v".into(),
    }
}

/// A socket that every user may connect to.
pub fn bind(path: &Path) -> UnixListener {
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
