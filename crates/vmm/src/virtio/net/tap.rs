//! The TAP's side: how it is set up, and how it says that it is gone.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::packet::HEADER_LEN;

mod ioctl {
    nix::ioctl_write_ptr!(tun_set_vnet_hdr_sz, b'T', 216, libc::c_int);
    nix::ioctl_write_int!(tun_set_offload, b'T', 208);
}

/// Sets the header's length, forbids offloads that we have not agreed upon with the guest, and makes reads
/// non-blocking.
///
/// # Errors
/// `tap` is no TAP with `IFF_VNET_HDR`.
pub(super) fn configure(tap: &File) -> io::Result<()> {
    let header_len = HEADER_LEN as libc::c_int;
    // SAFETY: the kernel reads an int from a live reference.
    unsafe { ioctl::tun_set_vnet_hdr_sz(tap.as_raw_fd(), &header_len) }?;
    // SAFETY: the argument is a number.
    unsafe { ioctl::tun_set_offload(tap.as_raw_fd(), 0) }?;
    let flags = OFlag::from_bits_retain(fcntl(tap, FcntlArg::F_GETFL)?);
    fcntl(tap, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Whether an error means that the interface behind the descriptor was deleted.
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EBADFD | libc::EBADF | libc::ENODEV)
    )
}
