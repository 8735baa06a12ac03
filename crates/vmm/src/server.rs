//! The server of the control socket: accepts clients, frames lines, drops whoever is slow or babbles.
//!
//! It is driven by the lifecycle's epoll and never blocks: what a client sends or does not read is held in
//! buffers with a bound.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::control::{Event, Message, Reply, Request};

/// Bytes of a request line; the longest real one has 16.
const LINE_LIMIT: usize = 4096;
/// Bytes that a client may leave unread before its next message.
const BACKLOG_LIMIT: usize = 64 << 10;
const CLIENT_LIMIT: usize = 32;

struct Client {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
}

/// The listener and its clients, by descriptor.
pub struct Server {
    listener: UnixListener,
    clients: BTreeMap<RawFd, Client>,
}

impl Server {
    /// Serves a listening socket from `epoll`, whose events' data are descriptors.
    ///
    /// # Errors
    /// The socket cannot be watched.
    pub fn new(listener: UnixListener, epoll: &Epoll) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        watch(epoll, ControlOperation::Add, listener.as_raw_fd(), EventSet::IN)?;
        Ok(Self {
            listener,
            clients: BTreeMap::new(),
        })
    }

    /// Handles a ready descriptor if it is the server's: each request that has come in goes through `serve`.
    /// Says whether it was.
    pub fn handle(&mut self, fd: RawFd, epoll: &Epoll, mut serve: impl FnMut(Request) -> Reply) -> bool {
        if fd == self.listener.as_raw_fd() {
            self.accept(epoll);
            return true;
        }
        let Some(client) = self.clients.get_mut(&fd) else {
            return false;
        };
        let served = client.receive(&mut serve).and_then(|()| client.send(epoll));
        self.keep_or_drop(fd, served);
        true
    }

    /// Tells all clients.
    pub fn announce(&mut self, event: &Event, epoll: &Epoll) {
        let fds: Vec<RawFd> = self.clients.keys().copied().collect();
        for fd in fds {
            if let Some(client) = self.clients.get_mut(&fd) {
                let sent = client
                    .push(&Message::Event(event.clone()))
                    .and_then(|()| client.send(epoll));
                self.keep_or_drop(fd, sent);
            }
        }
    }

    fn accept(&mut self, epoll: &Epoll) {
        // One for each event: the epoll is level-triggered.
        let Ok((stream, _)) = self.listener.accept() else {
            return;
        };
        let fd = stream.as_raw_fd();
        let watched = stream
            .set_nonblocking(true)
            .and_then(|()| watch(epoll, ControlOperation::Add, fd, EventSet::IN));
        if watched.is_ok() && self.clients.len() < CLIENT_LIMIT {
            let client = Client {
                stream,
                input: Vec::new(),
                output: Vec::new(),
            };
            self.clients.insert(fd, client);
        }
    }

    fn keep_or_drop(&mut self, fd: RawFd, result: io::Result<()>) {
        if let Err(error) = result {
            tracing::debug!(%error, "control client dropped");
            // Closing also takes it out of the epoll set.
            self.clients.remove(&fd);
        }
    }
}

impl Client {
    fn receive(&mut self, serve: &mut impl FnMut(Request) -> Reply) -> io::Result<()> {
        let mut chunk = [0; LINE_LIMIT];
        let len = match self.stream.read(&mut chunk) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => len,
            Err(error) if is_later(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        self.input.extend_from_slice(&chunk[..len]);
        while let Some(end) = self.input.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.input.drain(..=end).collect();
            let reply = match serde_json::from_slice(&line) {
                Ok(request) => serve(request),
                Err(error) => Reply::Error {
                    message: format!("not a request: {error}"),
                },
            };
            self.push(&Message::Reply(reply))?;
        }
        if self.input.len() >= LINE_LIMIT {
            return Err(io::Error::other("request line too long"));
        }
        Ok(())
    }

    fn push(&mut self, message: &Message) -> io::Result<()> {
        // Before the message and not with it: one answer may be long, and we know how long.
        if self.output.len() > BACKLOG_LIMIT {
            return Err(io::Error::other("the client does not read"));
        }
        serde_json::to_writer(&mut self.output, message)?;
        self.output.push(b'\n');
        Ok(())
    }

    /// Sends what it can; the epoll tells when the rest may go.
    fn send(&mut self, epoll: &Epoll) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => drop(self.output.drain(..len)),
                Err(error) if is_later(&error) => break,
                Err(error) => return Err(error),
            }
        }
        let events = if self.output.is_empty() {
            EventSet::IN
        } else {
            EventSet::IN | EventSet::OUT
        };
        watch(epoll, ControlOperation::Modify, self.stream.as_raw_fd(), events)
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// Changes what `epoll` watches; an event's data is the descriptor.
pub(crate) fn watch(epoll: &Epoll, change: ControlOperation, fd: RawFd, events: EventSet) -> io::Result<()> {
    epoll.ctl(change, fd, EpollEvent::new(events, fd as u64))
}

#[cfg(test)]
mod tests;
