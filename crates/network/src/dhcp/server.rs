//! The DHCP server of one TAP: a socket that hears that TAP alone.

use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, SockaddrIn, bind, sendmsg, setsockopt,
    socket, sockopt,
};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::Lease;
use super::answer::answer;

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;

/// Opens the socket in the calling thread's namespace; the TAP must exist.
pub(crate) fn open_socket(tap: &str) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    setsockopt(&socket, sockopt::Broadcast, &true)?;
    setsockopt(&socket, sockopt::BindToDevice, &OsString::from(tap))?;
    no_checksums(&socket)?;
    bind(socket.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, SERVER_PORT))?;
    Ok(socket)
}

/// Sends without UDP checksums, which IPv4 allows. Otherwise the kernel would leave them to the TAP's guest, and not
/// every client that reads whole frames knows to look away.
fn no_checksums(socket: &OwnedFd) -> io::Result<()> {
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

/// Answers for as long as it is polled. Must be called in a runtime's context.
pub(crate) async fn serve(socket: OwnedFd, lease: Lease) {
    let socket = match UdpSocket::from_std(socket.into()) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!(address = %lease.address, %error, "registering the DHCP socket");
            return;
        }
    };
    let mut buffer = [0; 2048];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, _)) => {
                let packet = buffer.get(..length).unwrap_or_default();
                let Some(answer) = answer(&lease, packet) else {
                    continue;
                };
                if let Err(error) = send(&socket, lease.router, answer.to, &answer.packet).await {
                    tracing::debug!(address = %lease.address, %error, "answering DHCP");
                }
            }
            Err(error) => {
                // The TAP is gone with its monitor; a new one gets a new server.
                tracing::debug!(address = %lease.address, %error, "the DHCP socket ended");
                return;
            }
        }
    }
}

/// Sends with the router as the source: the TAP has no address that the kernel could choose.
async fn send(socket: &UdpSocket, from: Ipv4Addr, to: Ipv4Addr, packet: &[u8]) -> io::Result<()> {
    let source = libc::in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: libc::in_addr {
            s_addr: u32::from_ne_bytes(from.octets()),
        },
        ipi_addr: libc::in_addr { s_addr: 0 },
    };
    let to = SockaddrIn::from(SocketAddrV4::new(to, CLIENT_PORT));
    let write = || {
        let control = [ControlMessage::Ipv4PacketInfo(&source)];
        let sent = sendmsg(
            socket.as_raw_fd(),
            &[IoSlice::new(packet)],
            &control,
            MsgFlags::empty(),
            Some(&to),
        );
        sent.map(drop).map_err(io::Error::from)
    };
    socket.async_io(Interest::WRITABLE, write).await
}
