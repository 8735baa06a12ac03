//! The TAP's side: how it is set up for what the guest agreed upon, and how it says that it is gone.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::offloads::HEADER_LEN;

mod ioctl {
    nix::ioctl_write_ptr!(tun_set_vnet_hdr_sz, b'T', 216, libc::c_int);
    nix::ioctl_write_int!(tun_set_offload, b'T', 208);
    nix::ioctl_write_ptr_bad!(
        tun_set_queue,
        nix::request_code_write!(b'T', 217, size_of::<libc::c_int>()),
        libc::ifreq
    );
}

const CHECKSUM_AND_TCP: u32 = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
/// Offloads of kernels from new to old (USO came with Linux 6.2), the first that a kernel knows is taken.
const KNOWN: [u32; 4] = [
    CHECKSUM_AND_TCP | libc::TUN_F_UFO | libc::TUN_F_USO4 | libc::TUN_F_USO6,
    CHECKSUM_AND_TCP | libc::TUN_F_UFO,
    CHECKSUM_AND_TCP,
    0,
];

/// One queue of a TAP interface.
pub(super) struct Tap {
    file: File,
    /// Offloads that the kernel knows, a mask of `TUN_F_*`.
    offloads: u32,
    attached: AtomicBool,
}

impl Tap {
    /// Makes reads non-blocking, sets the header's length (a modern device has but one), and finds out what the
    /// kernel can do; no offload is on then.
    ///
    /// # Errors
    /// `file` is no TAP with `IFF_VNET_HDR`.
    pub(super) fn new(file: File) -> io::Result<Self> {
        let header_len = HEADER_LEN as libc::c_int;
        // SAFETY: the kernel reads an int from a live reference.
        unsafe { ioctl::tun_set_vnet_hdr_sz(file.as_raw_fd(), &header_len) }?;
        let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
        fcntl(&file, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        let mut tap = Self::on(file, 0);
        tap.offloads = KNOWN
            .into_iter()
            .find(|&offloads| tap.set_offloads(offloads).is_ok())
            .unwrap_or_default();
        tap.set_offloads(0)?;
        Ok(tap)
    }

    /// On anything that moves a packet behind its header per call, and is non-blocking.
    pub(super) fn on(file: File, offloads: u32) -> Self {
        Self {
            file,
            offloads,
            attached: AtomicBool::new(true),
        }
    }

    pub(super) fn offloads(&self) -> u32 {
        self.offloads
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// What the kernel may leave to the reader, on all queues of the interface: a mask of `TUN_F_*`.
    pub(super) fn set_offloads(&self, offloads: u32) -> io::Result<()> {
        // SAFETY: the argument is a number.
        unsafe { ioctl::tun_set_offload(self.file.as_raw_fd(), offloads.into()) }?;
        Ok(())
    }

    /// Whether the kernel gives packets to this queue of the interface.
    pub(super) fn set_attached(&self, attached: bool) -> io::Result<()> {
        if self.attached.swap(attached, Ordering::AcqRel) == attached {
            return Ok(());
        }
        // SAFETY: all zeroes is a valid `ifreq`.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        let flag = if attached {
            libc::IFF_ATTACH_QUEUE
        } else {
            libc::IFF_DETACH_QUEUE
        };
        request.ifr_ifru.ifru_flags = flag as libc::c_short;
        // SAFETY: the kernel reads a live `ifreq`.
        unsafe { ioctl::tun_set_queue(self.file.as_raw_fd(), &request) }.inspect_err(|_| {
            self.attached.store(!attached, Ordering::Release);
        })?;
        Ok(())
    }
}

impl AsRawFd for Tap {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Whether an error means that the interface behind the descriptor was deleted.
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EBADFD | libc::EBADF | libc::ENODEV)
    )
}
