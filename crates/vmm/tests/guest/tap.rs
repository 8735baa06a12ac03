//! The other end of a guest's wire: a TAP of the kernel, in a network namespace that ends with the test.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};

nix::ioctl_write_ptr_bad!(tun_set_iff, 0x4004_54ca, libc::ifreq);

/// Moves the calling thread into a new namespace, with TAP 0. `None`, loudly, without root.
pub fn in_a_namespace(test: &str) -> Option<OwnedFd> {
    let [tap] = queues_in_a_namespace(test)?;
    Some(tap)
}

/// The same with a TAP of several queues.
pub fn queues_in_a_namespace<const QUEUES: usize>(test: &str) -> Option<[OwnedFd; QUEUES]> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: {test}: needs root for a namespace and a TAP");
        return None;
    }
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    Some(add_queues(0))
}

/// Makes TAP `number` in the namespace, with the address 10.0.`number`.1/24. It goes when nobody has it open.
pub fn add(number: u8) -> OwnedFd {
    let [tap] = add_queues(number);
    tap
}

/// Takes TAP `number` away from whoever has it open.
pub fn delete(number: u8) {
    ip(&["link", "del", &name(number)]);
}

fn name(number: u8) -> String {
    format!("hearth-g{number}")
}

/// As [`add`], with several queues.
pub fn add_queues<const QUEUES: usize>(number: u8) -> [OwnedFd; QUEUES] {
    let name = name(number);
    let several = if QUEUES > 1 { libc::IFF_MULTI_QUEUE } else { 0 };
    let queues = std::array::from_fn(|_| open(&name, several));
    ip(&["addr", "add", &format!("10.0.{number}.1/24"), "dev", &name]);
    // A host that says nothing unasked.
    ip(&["link", "set", &name, "addrgenmode", "none"]);
    ip(&["link", "set", &name, "up"]);
    // Guests ask for addresses, and answer no such question: what the host learns of them stays true, here in milliseconds.
    ip(&[
        "ntable",
        "change",
        "name",
        "arp_cache",
        "dev",
        &name,
        "base_reachable",
        "3600000",
    ]);
    queues
}

fn open(name: &str, more_flags: libc::c_int) -> OwnedFd {
    let mut options = File::options();
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
    let tap = options.open("/dev/net/tun").unwrap();
    // SAFETY: all zeroes is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | more_flags;
    request.ifr_ifru.ifru_flags = flags as i16;
    // SAFETY: the kernel reads and writes a live `ifreq`.
    unsafe { tun_set_iff(tap.as_raw_fd(), &request) }.unwrap();
    tap.into()
}

fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().unwrap();
    assert!(status.success(), "ip {arguments:?}");
}
