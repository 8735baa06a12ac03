//! The other end of the guest's wire: a TAP of the kernel, in a network namespace that ends with the test.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};

nix::ioctl_write_ptr_bad!(tun_set_iff, 0x4004_54ca, libc::ifreq);

const NAME: &str = "hearth-g0";

/// Moves the calling thread into a new namespace, with a TAP that has 10.0.0.1/24. `None`, loudly, without root.
pub fn in_a_namespace(test: &str) -> Option<OwnedFd> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: {test}: needs root for a namespace and a TAP");
        return None;
    }
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let tap = open();
    ip(&["addr", "add", "10.0.0.1/24", "dev", NAME]);
    ip(&["link", "set", NAME, "up"]);
    Some(tap)
}

fn open() -> OwnedFd {
    let mut options = File::options();
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
    let tap = options.open("/dev/net/tun").unwrap();
    // SAFETY: all zeroes is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(NAME.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as i16;
    // SAFETY: the kernel reads and writes a live `ifreq`.
    unsafe { tun_set_iff(tap.as_raw_fd(), &request) }.unwrap();
    tap.into()
}

fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().unwrap();
    assert!(status.success(), "ip {arguments:?}");
}
