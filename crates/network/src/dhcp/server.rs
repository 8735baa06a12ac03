//! The DHCP server of one TAP: a socket that hears that TAP alone.

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg, setsockopt, sockopt};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::Lease;
use super::answer::answer;
use crate::share::{Service, Share};
use crate::sockets::{self, Datagrams};

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;

/// Opens the socket in the calling thread's namespace, on the TAP, which must exist.
pub(crate) fn open_socket(tap: &str) -> io::Result<OwnedFd> {
    let socket = sockets::udp(tap, SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, SERVER_PORT))?;
    setsockopt(&socket, sockopt::Broadcast, &true)?;
    sockets::no_checksums(&socket)?;
    Ok(socket)
}

/// Answers for as long as it is polled. Must be called in a runtime's context.
///
/// # Errors
/// The socket cannot be registered with the runtime, or it ended: its TAP is gone.
pub(crate) async fn serve(socket: OwnedFd, share: Arc<Share>, lease: Lease) -> io::Result<()> {
    let socket = UdpSocket::from_std(socket.into())?;
    let mut datagrams = Datagrams::new(&socket, &share, Service::Dhcp);
    let mut buffer = [0; 2048];
    loop {
        let (length, _) = datagrams.next(&mut buffer).await?;
        let packet = buffer.get(..length).unwrap_or_default();
        let Some(answer) = answer(&lease, packet) else {
            continue;
        };
        if let Err(error) = send(&socket, lease.router, answer.to, &answer.packet).await {
            tracing::debug!(address = %lease.address, %error, "answering DHCP");
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
