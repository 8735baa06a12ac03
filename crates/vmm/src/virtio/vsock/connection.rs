//! One stream: a guest's port on one side, a Unix socket on the other.
//!
//! What the guest sends goes to the socket at once, or waits in a buffer whose size is the credit that the guest
//! got. What the host program sends stays in its socket until the guest has credit and a receive buffer.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use nix::sys::socket::{MsgFlags, recv};

use super::credit::Credit;
use super::packet::{HEADER_LEN, Header, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, op};
use crate::virtio::QueueMemory;
use crate::virtio::chain::Chain;
use crate::virtio::vectors::Vectors;

/// Bytes of one packet to the guest at most, as Linux has it.
const MAX_PAYLOAD: usize = 64 * 1024;

/// What is owed to the guest beside data.
#[derive(Debug, Default)]
struct Owed {
    /// `REQUEST` or `RESPONSE`, before everything else.
    opening: Option<u16>,
    credit_update: bool,
    credit_request: bool,
    shutdown: bool,
    reset: bool,
}

/// What one of the two sides will not do any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Closed {
    sending: bool,
    receiving: bool,
}

impl Closed {
    /// As `VIRTIO_VSOCK_SHUTDOWN_F_*`.
    fn flags(self) -> u32 {
        let flag = |closed, flag| if closed { flag } else { 0 };
        flag(self.sending, SHUTDOWN_SEND) | flag(self.receiving, SHUTDOWN_RECEIVE)
    }
}

#[derive(Debug)]
pub(super) struct Connection {
    socket: UnixStream,
    /// The guest has accepted, or we have.
    established: bool,
    credit: Credit,
    /// Of the guest, on the way to the socket.
    buffer: VecDeque<u8>,
    guest: Closed,
    host: Closed,
    owed: Owed,
    credit_requested: bool,
    /// Since the last event the socket has neither refused to give nor to take.
    readable: bool,
    writable: bool,
    /// It stands in the line of those that have something for the guest.
    pub(super) in_line: bool,
}

/// What the guest's packet leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Lives,
    /// The guest knows that it is over.
    Over,
}

impl Connection {
    /// Of a guest that connected with `request`. `socket` is non-blocking.
    pub(super) fn new(socket: UnixStream, request: &Header) -> Self {
        let mut connection = Self::to_guest(socket);
        connection.established = true;
        connection.owed.opening = Some(op::RESPONSE);
        connection.credit.hear(request);
        connection
    }

    /// Of a host program that wants to connect to the guest. `socket` is non-blocking.
    pub(super) fn to_guest(socket: UnixStream) -> Self {
        Self {
            socket,
            established: false,
            credit: Credit::default(),
            buffer: VecDeque::new(),
            guest: Closed::default(),
            host: Closed::default(),
            owed: Owed {
                opening: Some(op::REQUEST),
                ..Owed::default()
            },
            credit_requested: false,
            readable: true,
            writable: true,
            in_line: false,
        }
    }

    pub(super) fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// The socket's readiness changed; a host program that hung up takes nothing any more.
    pub(super) fn on_socket(&mut self, readable: bool, writable: bool, hung_up: bool) {
        self.readable |= readable || hung_up;
        self.writable |= writable;
        if hung_up && !self.host.receiving {
            self.stop_writing();
        }
        if writable {
            self.flush();
        }
    }

    /// A packet of the guest for this connection. `chain` holds as many bytes as the header says.
    pub(super) fn on_packet(
        &mut self,
        header: &Header,
        chain: &Chain,
        memory: &QueueMemory,
        vectors: &mut Vectors,
    ) -> Fate {
        self.credit.hear(header);
        self.credit_requested &= self.credit.may_send() == 0;
        match (header.op.get(), self.established) {
            (op::RST, _) => return Fate::Over,
            (op::RESPONSE, false) => self.establish(header.dst_port.get()),
            (op::RW, true) if !self.guest.sending => self.on_data(header.len.get(), chain, memory, vectors),
            (op::SHUTDOWN, true) => self.on_shutdown(header.flags.get()),
            (op::CREDIT_UPDATE, true) => {}
            (op::CREDIT_REQUEST, true) => self.owed.credit_update = true,
            _ => self.reset(),
        }
        Fate::Lives
    }

    /// The guest accepted; now the host program may hear of it.
    fn establish(&mut self, host_port: u32) {
        self.established = true;
        self.readable = true;
        // A new socket takes so few bytes.
        if self
            .socket
            .write_all(format!("OK {host_port}\n").as_bytes())
            .is_err()
        {
            self.reset();
        }
    }

    fn on_data(&mut self, len: u32, chain: &Chain, memory: &QueueMemory, vectors: &mut Vectors) {
        if !self.credit.receive(len) {
            return self.reset();
        }
        if self.host.receiving {
            // Nobody is there to take it; the guest learns so by the shutdown.
            self.credit.forwarded(len);
            return;
        }
        let mut done = 0;
        if self.buffer.is_empty() && self.writable && len > 0 {
            vectors.clear();
            vectors.extend_guest_up_to(chain.readable.slices(memory, HEADER_LEN as u64), len as usize);
            // SAFETY: the vectors are guest memory, which `memory` keeps mapped.
            match unsafe { vectors.write_to(&self.socket) } {
                Ok(written) => done = written,
                Err(error) => self.on_write_error(&error),
            }
            self.writable &= done == len as usize;
            self.credit.forwarded(done as u32);
        }
        if self.host.receiving {
            self.credit.forwarded(len - done as u32);
        } else if done < len as usize {
            let mut rest = vec![0; len as usize - done];
            // It was checked to be there.
            if chain
                .readable
                .read(memory, (HEADER_LEN + done) as u64, &mut rest)
                .is_ok()
            {
                self.buffer.extend(rest);
            }
        }
        self.owed.credit_update |= self.credit.is_stale();
    }

    fn on_shutdown(&mut self, flags: u32) {
        self.guest.receiving |= flags & SHUTDOWN_RECEIVE != 0;
        self.guest.sending |= flags & SHUTDOWN_SEND != 0;
        if self.guest.receiving {
            let _ = self.socket.shutdown(Shutdown::Read);
        }
        self.finish_guest();
    }

    /// Moves what is buffered to the socket.
    fn flush(&mut self) {
        while !self.buffer.is_empty() && self.writable {
            match self.socket.write(self.buffer.as_slices().0) {
                Ok(written) => {
                    self.buffer.drain(..written);
                    self.credit.forwarded(written as u32);
                }
                Err(error) => self.on_write_error(&error),
            }
        }
        if self.buffer.is_empty() {
            // Room for a full buffer is not kept for a stream that rests.
            self.buffer = VecDeque::new();
        }
        self.owed.credit_update |= self.credit.is_stale();
        self.finish_guest();
    }

    fn on_write_error(&mut self, error: &io::Error) {
        match error.kind() {
            io::ErrorKind::WouldBlock => self.writable = false,
            io::ErrorKind::Interrupted => {}
            _ => self.stop_writing(),
        }
    }

    /// The host program takes nothing any more, and the guest shall know.
    fn stop_writing(&mut self) {
        self.credit.forwarded(self.buffer.len() as u32);
        self.buffer = VecDeque::new();
        self.host.receiving = true;
        self.owed.shutdown = true;
    }

    /// All that the guest had to say has been said: the host program hears the end of it, and the guest that we
    /// know (it waits for a reset after it closed both directions).
    fn finish_guest(&mut self) {
        if self.guest.sending && self.buffer.is_empty() {
            let _ = self.socket.shutdown(Shutdown::Write);
            if self.guest.receiving {
                self.reset();
            }
        }
    }

    fn reset(&mut self) {
        self.owed = Owed {
            reset: true,
            ..Owed::default()
        };
    }

    /// Whether there may be something for the guest.
    pub(super) fn has_news(&self) -> bool {
        let Owed {
            opening,
            credit_update,
            credit_request,
            shutdown,
            reset,
        } = self.owed;
        let may_read = self.readable && !self.host.sending && !self.guest.receiving;
        let data = if self.established {
            may_read && (self.credit.may_send() > 0 || !self.credit_requested)
        } else {
            // A host program that goes away before the guest has answered.
            may_read && opening.is_none()
        };
        opening.is_some() || credit_update || credit_request || shutdown || reset || data
    }

    /// Writes one packet for the guest into `chain`, whose first bytes are for `header`; returns its header and
    /// whether the connection is over, or nothing if there is none.
    pub(super) fn next_packet(
        &mut self,
        mut header: Header,
        chain: &Chain,
        memory: &QueueMemory,
        vectors: &mut Vectors,
    ) -> Option<(Header, Fate)> {
        let mut fate = Fate::Lives;
        if self.owed.reset {
            header.op = op::RST.into();
            fate = Fate::Over;
        } else if let Some(opening) = self.owed.opening.take() {
            header.op = opening.into();
        } else if !self.established {
            self.look_for_end();
            if !self.owed.reset {
                return None;
            }
            header.op = op::RST.into();
            fate = Fate::Over;
        } else if let Some(len) = self.read_data(chain, memory, vectors) {
            header.op = op::RW.into();
            header.len = len.into();
        } else if self.owed.shutdown {
            self.owed.shutdown = false;
            header.op = op::SHUTDOWN.into();
            header.flags = self.host.flags().into();
        } else if std::mem::take(&mut self.owed.credit_request) {
            header.op = op::CREDIT_REQUEST.into();
        } else if std::mem::take(&mut self.owed.credit_update) {
            header.op = op::CREDIT_UPDATE.into();
        } else {
            return None;
        }
        self.owed.credit_update = false;
        self.credit.tell(&mut header);
        Some((header, fate))
    }

    /// Reads as much as the guest has credit and `chain` has room for.
    fn read_data(&mut self, chain: &Chain, memory: &QueueMemory, vectors: &mut Vectors) -> Option<u32> {
        if !self.readable || self.host.sending || self.guest.receiving {
            return None;
        }
        let room = usize::try_from(chain.writable.len())
            .unwrap_or(MAX_PAYLOAD)
            .saturating_sub(HEADER_LEN);
        let limit = room.min(MAX_PAYLOAD).min(self.credit.may_send() as usize);
        if limit == 0 {
            if room > 0 && !self.credit_requested {
                self.credit_requested = true;
                self.owed.credit_request = true;
            }
            return None;
        }
        vectors.clear();
        vectors.extend_guest_up_to(chain.writable.slices(memory, HEADER_LEN as u64), limit);
        // SAFETY: the vectors are guest memory, which `memory` keeps mapped.
        match unsafe { vectors.read_from(&self.socket) } {
            Ok(0) => {
                self.host.sending = true;
                self.owed.shutdown = true;
                None
            }
            Ok(len) => {
                self.credit.sent(len as u32);
                Some(len as u32)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => None,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                None
            }
            Err(_) => {
                self.host.sending = true;
                self.stop_writing();
                None
            }
        }
    }

    /// Whether the host program went away before the guest has answered. What it sent already stays for later.
    fn look_for_end(&mut self) {
        self.readable = false;
        if recv(self.socket.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK).is_ok_and(|len| len == 0) {
            self.reset();
        }
    }
}
