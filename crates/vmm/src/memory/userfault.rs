//! Guest memory whose pages come from another process, each when it is first looked at: userfaultfd(2).
//!
//! The page server is connected by a Unix stream socket. It gets one line of JSON, a [`Hello`], together with the
//! descriptor of the userfaultfd, on which it reads faults and puts pages in place with `UFFDIO_COPY`. Nothing is
//! ever sent back.
//!
//! The monitor keeps the userfaultfd open too: if the server dies, whoever looks at a missing page waits, instead
//! of seeing zeroes. The socket's hang-up is then the end of the machine, as if its power were cut: guest and
//! devices cannot be stopped in order, because they may be waiting for pages that nobody brings. So it is if the
//! server does not answer within 10 s while the machine is to be paused, stopped or changed, or else 10 s for each
//! 100 MiB while a snapshot is made of it. What is in a page is the server's word.
//!
//! The few calls are made by hand, after Linux's `include/uapi/linux/userfaultfd.h`.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use serde::{Deserialize, Serialize};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use super::GuestMemory;
use super::dirty::PAGE;
use crate::control::send;

/// On `/dev/userfaultfd`: a new userfaultfd, with flags as open(2) has them.
const USERFAULTFD_IOC_NEW: libc::Ioctl = 0xaa00;
const UFFDIO_API: libc::Ioctl = 0xc018_aa3f_u32 as libc::Ioctl;
const UFFDIO_REGISTER: libc::Ioctl = 0xc020_aa00_u32 as libc::Ioctl;
const UFFD_API: u64 = 0xaa;
const REGISTER_MODE_MISSING: u64 = 1;

#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

/// What the page server is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Bytes of a page.
    pub page_size: u64,
    pub regions: Vec<Region>,
}

/// A piece of the monitor's address space that wants pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// Where it begins, as faults and `UFFDIO_COPY` count.
    pub address: u64,
    /// Bytes.
    pub length: u64,
    /// Where its content begins in the memory file.
    pub offset: u64,
}

/// The connection to whoever brings the pages, and what they are brought by: both as long as the memory is.
pub struct PageServer {
    _socket: UnixStream,
    _userfaultfd: OwnedFd,
}

impl PageServer {
    /// Has the pages of `memory`, which nobody has touched, brought by whoever is at the other end of `socket`.
    /// `device` is `/dev/userfaultfd`, without which the process needs privileges.
    ///
    /// # Errors
    /// The kernel refuses, or the socket is closed.
    pub fn new(memory: &GuestMemory, socket: UnixStream, device: Option<&File>) -> io::Result<Self> {
        let userfaultfd = open(device)?;
        let mut hello = Hello {
            page_size: PAGE,
            regions: Vec::new(),
        };
        let mut offset = 0;
        for region in memory.iter() {
            let address = memory
                .get_host_address(region.start_addr())
                .map_err(io::Error::other)?;
            let region = Region {
                address: address as u64,
                length: region.len(),
                offset,
            };
            register(&userfaultfd, &region)?;
            offset += region.length;
            hello.regions.push(region);
        }
        let mut line = serde_json::to_vec(&hello)?;
        line.push(b'\n');
        if send(&socket, &line, &[userfaultfd.as_fd()])? < line.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(Self {
            _socket: socket,
            _userfaultfd: userfaultfd,
        })
    }
}

fn open(device: Option<&File>) -> io::Result<OwnedFd> {
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
    let fd = match device {
        // SAFETY: takes a number and returns a new descriptor.
        Some(device) => unsafe { libc::ioctl(device.as_raw_fd(), USERFAULTFD_IOC_NEW, flags) },
        // SAFETY: takes a number and returns a new descriptor.
        None => unsafe { libc::syscall(libc::SYS_userfaultfd, flags) as libc::c_int },
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is new, so nobody else owns it.
    let userfaultfd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut api = Api {
        api: UFFD_API,
        features: 0,
        ioctls: 0,
    };
    // SAFETY: `api` is the structure of this call, and outlives it.
    check(unsafe { libc::ioctl(userfaultfd.as_raw_fd(), UFFDIO_API, &raw mut api) })?;
    Ok(userfaultfd)
}

fn register(userfaultfd: &OwnedFd, region: &Region) -> io::Result<()> {
    let mut register = Register {
        start: region.address,
        len: region.length,
        mode: REGISTER_MODE_MISSING,
        ioctls: 0,
    };
    // SAFETY: `register` is the structure of this call, and outlives it; the memory it names is guest memory, which
    // this process never refers to.
    check(unsafe { libc::ioctl(userfaultfd.as_raw_fd(), UFFDIO_REGISTER, &raw mut register) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
