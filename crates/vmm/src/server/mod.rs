//! The server of the control socket: accepts clients, frames lines, drops whoever is slow or babbles.
//!
//! It is driven by the lifecycle's epoll and never blocks: what a client sends or does not read is held in
//! buffers with a bound. Requests are pulled out of it by [`Server::next_request`], and each is answered by
//! [`Server::reply`], at once or when its deed is done.

mod connection;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod fuzz;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::control::{Event, Message, Reply, Request};
pub(crate) use connection::is_later;
use connection::{Connection, Line};

const CLIENT_LIMIT: usize = 32;
/// Characters of what is wrong with a line.
const COMPLAINT_LIMIT: usize = 300;

/// A client, for as long as it is connected; never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientId(u64);

/// What a client asks for.
pub struct Asked {
    pub client: ClientId,
    pub request: Request,
    /// What came along with it.
    pub descriptors: Vec<OwnedFd>,
}

/// The listener and its clients, by descriptor.
pub struct Server {
    listener: UnixListener,
    clients: BTreeMap<RawFd, Connection>,
    next_id: u64,
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
            next_id: 0,
        })
    }

    /// Handles an event if it is the server's: what has come in is there for [`Self::next_request`].
    /// Says whether it was.
    pub fn handle(&mut self, event: &EpollEvent, epoll: &Epoll) -> bool {
        let fd = event.data() as RawFd;
        if fd == self.listener.as_raw_fd() {
            self.accept(epoll);
            return true;
        }
        let Some(client) = self.clients.get_mut(&fd) else {
            return false;
        };
        let events = event.event_set();
        let mut result = Ok(());
        if events.contains(EventSet::IN) {
            result = client.receive();
        } else if events.intersects(EventSet::HANG_UP | EventSet::ERROR) {
            result = Err(io::ErrorKind::ConnectionReset.into());
        }
        self.settle(fd, result, epoll);
        true
    }

    /// The next request that nobody has been given yet; a client that has one waits for its
    /// [`Self::reply`]. What is no request is answered here.
    pub fn next_request(&mut self, epoll: &Epoll) -> Option<Asked> {
        let fds: Vec<RawFd> = self.clients.keys().copied().collect();
        for fd in fds {
            while let Some(client) = self.clients.get_mut(&fd) {
                let Some(Line { bytes, descriptors }) = client.next_line() else {
                    break;
                };
                let client = client.id;
                match serde_json::from_slice(&bytes) {
                    Ok(request) => {
                        return Some(Asked {
                            client,
                            request,
                            descriptors,
                        });
                    }
                    Err(error) => self.reply(client, no_request(&error), epoll),
                }
            }
        }
        None
    }

    /// Answers the request that `client` waits for; it may be gone.
    pub fn reply(&mut self, client: ClientId, reply: Reply, epoll: &Epoll) {
        let found = self.clients.iter_mut().find(|(_, there)| there.id == client);
        if let Some((&fd, connection)) = found {
            connection.answered();
            let pushed = connection.push(&Message::Reply(reply));
            self.settle(fd, pushed, epoll);
        }
    }

    /// Tells all clients.
    pub fn announce(&mut self, event: &Event, epoll: &Epoll) {
        let fds: Vec<RawFd> = self.clients.keys().copied().collect();
        for fd in fds {
            if let Some(client) = self.clients.get_mut(&fd) {
                let pushed = client.push(&Message::Event(event.clone()));
                self.settle(fd, pushed, epoll);
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
            let id = ClientId(self.next_id);
            self.next_id += 1;
            self.clients.insert(fd, Connection::new(id, stream));
        }
    }

    /// After anything was done with a client: sends what it can, waits for what comes next, or drops it.
    fn settle(&mut self, fd: RawFd, result: io::Result<()>, epoll: &Epoll) {
        let Some(client) = self.clients.get_mut(&fd) else {
            return;
        };
        let result = result
            .and_then(|()| client.send())
            .and_then(|()| watch(epoll, ControlOperation::Modify, fd, client.interest()));
        if let Err(error) = result {
            tracing::debug!(%error, "control client dropped");
            // Closing also takes it out of the epoll set.
            self.clients.remove(&fd);
        }
    }
}

fn no_request(error: &serde_json::Error) -> Reply {
    let names = Request::NAMES.join(", ");
    // Some repeat the whole line, with more escapes than it had.
    let error: String = error.to_string().chars().take(COMPLAINT_LIMIT).collect();
    Reply::Error {
        message: format!("not a request: {error}; the requests are {names}"),
    }
}

/// Changes what `epoll` watches; an event's data is the descriptor.
pub(crate) fn watch(epoll: &Epoll, change: ControlOperation, fd: RawFd, events: EventSet) -> io::Result<()> {
    epoll.ctl(change, fd, EpollEvent::new(events, fd as u64))
}

#[cfg(test)]
mod tests;
