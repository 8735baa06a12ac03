//! All connections of the device, and what leads to a new one: a guest's request, or a host program that says
//! `CONNECT <port>` on the listening socket.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, accept4, connect, recv, socket,
};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use zerocopy::IntoBytes;

use super::connection::{Connection, Fate};
use super::packet::{HEADER_LEN, HOST_CID, Header, Ports, STREAM, op};
use crate::virtio::QueueMemory;
use crate::virtio::chain::{Chain, Malformed};
use crate::virtio::vectors::Vectors;

/// Connections at a time, and host programs that have not said yet where to.
const MAX_CONNECTIONS: usize = 512;
const MAX_GREETING: usize = 64;
/// Resets owed for connections that do not exist; the guest's packets wait while there are so many.
const MAX_RESETS: usize = 256;
/// Bytes of `CONNECT <port>`, with a line feed, and some to spare.
const MAX_GREETING_LEN: usize = 32;
/// Host programs' ports, as the guest sees them: beyond those that a host program would be asked for.
const FIRST_HOST_PORT: u32 = 1 << 30;
/// No port (`VMADDR_PORT_ANY`), and so the mark of sockets that are no connections.
const NO_PORT: u32 = u32::MAX;
const LISTENER: u64 = u64::MAX;

const EVENTS: usize = 64;

pub(super) struct Mux {
    guest_cid: u64,
    listener: UnixListener,
    /// Of the host's sockets: `_` and the port follow.
    prefix: PathBuf,
    epoll: Epoll,
    connections: BTreeMap<Ports, Connection>,
    /// Host programs that have connected and not said a port yet, by descriptor.
    greeting: BTreeMap<RawFd, UnixStream>,
    /// Connections that may have something for the guest, in the order of their turns.
    line: VecDeque<Ports>,
    resets: VecDeque<Header>,
    next_host_port: u32,
    vectors: Vectors,
}

impl Mux {
    /// # Errors
    /// No descriptor is left.
    pub(super) fn new(guest_cid: u64, listener: UnixListener, prefix: PathBuf) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let epoll = Epoll::new()?;
        let event = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, LISTENER);
        epoll.ctl(ControlOperation::Add, listener.as_raw_fd(), event)?;
        Ok(Self {
            guest_cid,
            listener,
            prefix,
            epoll,
            connections: BTreeMap::new(),
            greeting: BTreeMap::new(),
            line: VecDeque::new(),
            resets: VecDeque::new(),
            next_host_port: FIRST_HOST_PORT,
            vectors: Vectors::default(),
        })
    }

    /// Ends all connections, because the guest has forgotten them.
    pub(super) fn clear(&mut self) {
        self.connections.clear();
        self.line.clear();
        self.resets.clear();
    }

    /// Whether the guest's packets must wait until it has taken some of ours.
    pub(super) fn is_full(&self) -> bool {
        self.resets.len() >= MAX_RESETS
    }

    /// Whether there may be packets for the guest.
    pub(super) fn has_news(&self) -> bool {
        !self.resets.is_empty() || !self.line.is_empty()
    }

    /// Takes a packet of the guest.
    ///
    /// # Errors
    /// The chain holds no packet.
    pub(super) fn on_packet(&mut self, chain: &Chain, memory: &QueueMemory) -> Result<u32, Malformed> {
        if !chain.writable.is_empty() {
            return Err(Malformed::Direction);
        }
        let mut header = Header::default();
        chain.readable.read(memory, 0, header.as_mut_bytes())?;
        let len = if header.op == op::RW { header.len.get() } else { 0 };
        if chain.readable.len() - (HEADER_LEN as u64) < u64::from(len) {
            return Err(Malformed::TooShort);
        }
        if header.src_cid != self.guest_cid || header.dst_cid != HOST_CID {
            return Ok(0);
        }
        let ports = header.ports();
        match self.connections.get_mut(&ports) {
            Some(connection) if header.kind == STREAM => {
                match connection.on_packet(&header, chain, memory, &mut self.vectors) {
                    Fate::Lives => self.line_up(ports),
                    Fate::Over => drop(self.connections.remove(&ports)),
                }
            }
            None if header.kind == STREAM && header.op == op::REQUEST => self.on_request(&header),
            _ => self.refuse(&header),
        }
        Ok(len)
    }

    /// Writes the next packet for the guest into `chain` and returns its length, or nothing if there is none.
    ///
    /// # Errors
    /// The chain has no room for a header.
    pub(super) fn next_packet(
        &mut self,
        chain: &Chain,
        memory: &QueueMemory,
    ) -> Result<Option<u32>, Malformed> {
        if !chain.readable.is_empty() {
            return Err(Malformed::Direction);
        }
        if chain.writable.len() < HEADER_LEN as u64 {
            return Err(Malformed::TooShort);
        }
        let Some(header) = self
            .resets
            .pop_front()
            .or_else(|| self.next_of_line(chain, memory))
        else {
            return Ok(None);
        };
        chain.writable.write(memory, 0, header.as_bytes())?;
        Ok(Some(header.len.get() + HEADER_LEN as u32))
    }

    /// Sees to the sockets that have become ready.
    pub(super) fn poll(&mut self) {
        let mut events = [EpollEvent::default(); EVENTS];
        let count = match self.epoll.wait(0, &mut events) {
            Ok(count) => count,
            Err(error) => {
                if error.kind() != io::ErrorKind::Interrupted {
                    tracing::error!(%error, "sockets of vsock cannot be waited for");
                }
                return;
            }
        };
        for event in events.iter().take(count) {
            match Token::from(event.data()) {
                Token::Listener => self.accept(),
                Token::Greeting(fd) => self.on_greeting(fd),
                Token::Connection(ports) => {
                    if let Some(connection) = self.connections.get_mut(&ports) {
                        let set = event.event_set();
                        connection.on_socket(
                            set.intersects(EventSet::IN | EventSet::READ_HANG_UP),
                            set.contains(EventSet::OUT),
                            set.intersects(EventSet::HANG_UP | EventSet::ERROR),
                        );
                        self.line_up(ports);
                    }
                }
            }
        }
    }

    fn next_of_line(&mut self, chain: &Chain, memory: &QueueMemory) -> Option<Header> {
        loop {
            let ports = self.line.pop_front()?;
            let Some(connection) = self.connections.get_mut(&ports) else {
                continue;
            };
            connection.in_line = false;
            let blank = Header::to_guest(self.guest_cid, ports, 0);
            let packet = connection.next_packet(blank, chain, memory, &mut self.vectors);
            match packet {
                Some((header, Fate::Over)) => {
                    self.connections.remove(&ports);
                    return Some(header);
                }
                Some((header, Fate::Lives)) => {
                    self.line_up(ports);
                    return Some(header);
                }
                None => {}
            }
        }
    }

    /// Gives a connection its next turn, if it has anything to say.
    fn line_up(&mut self, ports: Ports) {
        if let Some(connection) = self.connections.get_mut(&ports)
            && connection.has_news()
            && !connection.in_line
        {
            connection.in_line = true;
            self.line.push_back(ports);
        }
    }

    fn refuse(&mut self, header: &Header) {
        if header.op != op::RST {
            let reset = Header::to_guest(self.guest_cid, header.ports(), op::RST);
            self.resets.push_back(Header {
                kind: header.kind,
                ..reset
            });
        }
    }

    /// The guest connects to a port of the host.
    fn on_request(&mut self, header: &Header) {
        let ports = header.ports();
        let connected = if self.connections.len() < MAX_CONNECTIONS && ports.guest != NO_PORT {
            self.dial(ports.host)
        } else {
            Err(io::Error::from(io::ErrorKind::QuotaExceeded))
        };
        let added = connected.and_then(|socket| {
            let connection = Connection::new(socket, header);
            self.add(ports, connection, ControlOperation::Add)
        });
        if let Err(error) = added {
            tracing::debug!(%error, port = ports.host, "the guest's connection was refused");
            self.refuse(header);
        }
    }

    /// Connects to the socket of a port, without waiting for its program to accept.
    fn dial(&self, port: u32) -> io::Result<UnixStream> {
        let mut path = self.prefix.clone().into_os_string();
        path.push(format!("_{port}"));
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        connect(socket.as_raw_fd(), &UnixAddr::new(path.as_os_str())?)?;
        Ok(socket.into())
    }

    fn add(&mut self, ports: Ports, connection: Connection, watch: ControlOperation) -> io::Result<()> {
        self.watch(connection.socket(), Token::Connection(ports), watch)?;
        self.connections.insert(ports, connection);
        self.line_up(ports);
        Ok(())
    }

    fn accept(&mut self) {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        while let Ok(fd) = accept4(self.listener.as_raw_fd(), flags) {
            // SAFETY: the descriptor is new, and nobody else knows it.
            let socket: UnixStream = unsafe { OwnedFd::from_raw_fd(fd) }.into();
            // One more than may be is hung up upon.
            if self.greeting.len() < MAX_GREETING
                && self
                    .watch(&socket, Token::Greeting(fd), ControlOperation::Add)
                    .is_ok()
            {
                self.greeting.insert(fd, socket);
            }
        }
    }

    /// A host program says where to, in a line; what follows it is for the guest.
    fn on_greeting(&mut self, fd: RawFd) {
        let Some(socket) = self.greeting.remove(&fd) else {
            return;
        };
        match read_greeting(&socket) {
            Ok(Some(port)) => {
                if let Err(error) = self.connect_guest(port, socket) {
                    tracing::debug!(%error, port, "a host program's connection was refused");
                }
            }
            Ok(None) => {
                self.greeting.insert(fd, socket);
            }
            Err(error) => tracing::debug!(%error, "a host program did not say CONNECT and a port"),
        }
    }

    fn connect_guest(&mut self, port: u32, socket: UnixStream) -> io::Result<()> {
        if self.connections.len() >= MAX_CONNECTIONS || port == NO_PORT {
            return Err(io::Error::from(io::ErrorKind::QuotaExceeded));
        }
        let mut ports = Ports {
            guest: port,
            host: self.next_host_port,
        };
        while self.connections.contains_key(&ports) {
            ports.host = following_port(ports.host);
        }
        self.next_host_port = following_port(ports.host);
        self.add(ports, Connection::to_guest(socket), ControlOperation::Modify)
    }

    fn watch(&self, socket: &UnixStream, token: Token, operation: ControlOperation) -> io::Result<()> {
        let set = EventSet::IN | EventSet::OUT | EventSet::READ_HANG_UP | EventSet::EDGE_TRIGGERED;
        let event = EpollEvent::new(set, token.into());
        self.epoll.ctl(operation, socket.as_raw_fd(), event)?;
        Ok(())
    }
}

impl AsRawFd for Mux {
    /// Readable when [`Mux::poll`] has something to do.
    fn as_raw_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }
}

fn following_port(port: u32) -> u32 {
    // The last one is no port.
    port.checked_add(1)
        .filter(|&port| port != NO_PORT)
        .unwrap_or(FIRST_HOST_PORT)
}

/// Reads `CONNECT <port>` and a line feed, and not a byte more; nothing if the line is not complete yet.
fn read_greeting(socket: &UnixStream) -> io::Result<Option<u32>> {
    let wrong = || io::Error::from(io::ErrorKind::InvalidData);
    let mut buffer = [0; MAX_GREETING_LEN];
    let fd = socket.as_fd().as_raw_fd();
    let len = match recv(fd, &mut buffer, MsgFlags::MSG_PEEK) {
        Ok(len) => len,
        Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let Some(end) = buffer.iter().take(len).position(|&byte| byte == b'\n') else {
        let more = len > 0 && len < MAX_GREETING_LEN;
        return if more { Ok(None) } else { Err(wrong()) };
    };
    let line = buffer.get(..end).and_then(|line| std::str::from_utf8(line).ok());
    let port = line
        .and_then(|line| line.strip_prefix("CONNECT "))
        .and_then(|port| port.trim_end().parse().ok())
        .ok_or_else(wrong)?;
    let taken = recv(fd, buffer.get_mut(..=end).ok_or_else(wrong)?, MsgFlags::empty())?;
    if taken == end + 1 {
        Ok(Some(port))
    } else {
        Err(wrong())
    }
}

/// What a descriptor in the epoll is.
enum Token {
    Listener,
    Greeting(RawFd),
    Connection(Ports),
}

impl From<u64> for Token {
    fn from(value: u64) -> Self {
        let (high, low) = ((value >> 32) as u32, value as u32);
        match (high, value) {
            (_, LISTENER) => Self::Listener,
            (NO_PORT, _) => Self::Greeting(low as RawFd),
            _ => Self::Connection(Ports {
                guest: high,
                host: low,
            }),
        }
    }
}

impl From<Token> for u64 {
    fn from(token: Token) -> Self {
        let pair = |high: u32, low: u32| Self::from(high) << 32 | Self::from(low);
        match token {
            Token::Listener => LISTENER,
            // A descriptor is never -1, the listener's mark.
            Token::Greeting(fd) => pair(NO_PORT, fd as u32),
            Token::Connection(ports) => pair(ports.guest, ports.host),
        }
    }
}
