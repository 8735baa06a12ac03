//! Sockets that hear one TAP alone, and what the kernel says of them.
//!
//! Each interface has servers' sockets of its own: its own receive buffers and its own queue of connections. What one
//! guest sends cannot fill another's.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, setsockopt, socket, sockopt,
};
use tokio::net::UdpSocket;

use crate::share::{Service, Share};

/// How long a server looks away from an interface that is over its rate; the kernel drops what does not fit meanwhile.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);
/// Datagrams that are thrown away at once; a receive buffer of the usual size holds about 280 small ones.
const DRAIN: u64 = 512;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;

/// A UDP socket of the calling thread's namespace, bound to the TAP, which must exist.
pub(crate) fn udp(tap: &str, address: SocketAddrV4) -> io::Result<OwnedFd> {
    open(tap, address, SockType::Datagram)
}

/// A listening TCP socket of the calling thread's namespace, bound to the TAP, which must exist.
pub(crate) fn tcp(tap: &str, address: SocketAddrV4) -> io::Result<OwnedFd> {
    let socket = open(tap, address, SockType::Stream)?;
    listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(socket)
}

fn open(tap: &str, address: SocketAddrV4, kind: SockType) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, kind, flags, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    // Before the address: sockets of other TAPs have the same one.
    setsockopt(&socket, sockopt::BindToDevice, &OsString::from(tap))?;
    bind(socket.as_raw_fd(), &SockaddrIn::from(address))?;
    Ok(socket)
}

/// Sends without UDP checksums, which IPv4 allows. Otherwise the kernel would leave them to the TAP's guest, and not
/// every client that reads whole frames knows to look away.
pub(crate) fn no_checksums(socket: &OwnedFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the kernel reads an int from a live reference.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NO_CHECK,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if set < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Words of `SO_MEMINFO`, `include/uapi/linux/sock_diag.h`.
const MEMINFO_WORDS: usize = 9;
/// `SK_MEMINFO_DROPS`.
const MEMINFO_DROPS: usize = 8;

/// Packets that the kernel dropped because the socket's receive buffer was full, since the socket was made.
fn drops(socket: BorrowedFd<'_>) -> u32 {
    let mut words = [0_u32; MEMINFO_WORDS];
    let mut length = size_of_val(&words) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to a live array of that many.
    let read = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            words.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    // A kernel that cannot say has dropped nothing that is known.
    if read < 0 { 0 } else { words[MEMINFO_DROPS] }
}

/// A server's datagrams, at the rate of the interface's share.
pub(crate) struct Datagrams<'a> {
    socket: &'a UdpSocket,
    share: &'a Share,
    service: Service,
    drops: u32,
}

impl<'a> Datagrams<'a> {
    pub(crate) fn new(socket: &'a UdpSocket, share: &'a Share, service: Service) -> Self {
        Self {
            socket,
            share,
            service,
            drops: 0,
        }
    }

    /// The next datagram within the rate: its length and its sender. Those over the rate are dropped and counted.
    ///
    /// # Errors
    /// As of `recvfrom`.
    pub(crate) async fn next(&mut self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddrV4)> {
        loop {
            let (length, from) = self.socket.recv_from(buffer).await?;
            if !self.share.admit(self.service) {
                self.look_away(buffer).await;
            } else if let std::net::SocketAddr::V4(from) = from {
                return Ok((length, from));
            }
        }
    }

    /// Empties the receive buffer, and leaves the interface to the kernel for a moment: a flood costs the host no more
    /// than a buffer in each [`PAUSE`].
    async fn look_away(&mut self, buffer: &mut [u8]) {
        let mut refused = 0;
        // Bounded, since more may come while it is emptied.
        while refused < DRAIN && self.socket.try_recv_from(buffer).is_ok() {
            refused += 1;
        }
        let drops = drops(self.socket.as_fd());
        refused += u64::from(drops.wrapping_sub(self.drops));
        self.drops = drops;
        self.share.refuse(self.service, refused);
        tokio::time::sleep(PAUSE).await;
    }
}
