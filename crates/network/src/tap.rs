//! TAP devices, by `TUNSETIFF`: what rtnetlink cannot make.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

nix::ioctl_write_ptr_bad!(
    tun_set_iff,
    nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()),
    libc::ifreq
);
nix::ioctl_write_ptr!(tun_set_vnet_hdr_sz, b'T', 216, libc::c_int);

/// `struct virtio_net_hdr_v1`, with `num_buffers`: what a modern virtio device uses always.
const VNET_HEADER_BYTES: libc::c_int = 12;

/// Makes the TAP `name` with so many queues in the calling thread's namespace, and returns a descriptor of each. It
/// ends with its last descriptor. An existing one answers `EBUSY`: somebody holds it.
pub(crate) fn create(name: &str, queues: usize) -> io::Result<Vec<OwnedFd>> {
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    if queues == 1 {
        return Ok(vec![attach(name, flags)?]);
    }
    let flags = flags | libc::IFF_MULTI_QUEUE;
    // The first one makes the interface, and must not find it there.
    let first = attach(name, flags | libc::IFF_TUN_EXCL)?;
    let others = (1..queues).map(|_| attach(name, flags));
    std::iter::once(Ok(first)).chain(others).collect()
}

fn attach(name: &str, flags: libc::c_int) -> io::Result<OwnedFd> {
    let tap: File = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")?;
    // SAFETY: an `ifreq` is plain old data; all zeroes is a valid one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // One byte less than the field: the name stays zero-terminated.
    let room = request.ifr_name.len() - 1;
    if name.len() > room {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the interface name is too long",
        ));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the descriptor is open and `request` outlives the call, which reads and writes an `ifreq`.
    unsafe { tun_set_iff(tap.as_raw_fd(), &request) }?;
    // SAFETY: as above, with an int.
    unsafe { tun_set_vnet_hdr_sz(tap.as_raw_fd(), &VNET_HEADER_BYTES) }?;
    Ok(tap.into())
}
