//! One connection to the console: its place in the output, and what it may send.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EventSet};

use super::ring::Ring;
use crate::server::{is_later, watch};

/// Bytes moved by one system call.
const CHUNK: usize = 4096;

pub(super) struct Client {
    stream: UnixStream,
    /// The number of the next byte of output that it gets.
    position: u64,
    /// Words of ours that go out first, in pieces if must be.
    notice: Vec<u8>,
    /// It was told that someone else types.
    told: bool,
    /// Its socket is full.
    pub(super) blocked: bool,
    /// It reads no more.
    deaf: bool,
    /// It sends no more.
    silent: bool,
    /// In the epoll set, and for what.
    watched: Option<EventSet>,
}

impl Client {
    pub(super) fn new(stream: UnixStream, position: u64) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            position,
            notice: Vec::new(),
            told: false,
            blocked: false,
            deaf: false,
            silent: false,
            watched: None,
        })
    }

    /// Nothing moves on it any more, in either direction.
    pub(super) fn is_over(&self) -> bool {
        self.deaf && self.silent
    }

    pub(super) fn is_silent(&self) -> bool {
        self.silent
    }

    /// Its other end is closed, or failed; what it sent before may still be read.
    pub(super) fn hang_up(&mut self) {
        self.deaf = true;
        self.blocked = false;
    }

    /// Whether its other end is closed, which nobody notices while its input must wait.
    pub(super) fn has_hung_up(&self) -> bool {
        let mut fds = [PollFd::new(&self.stream, PollFlags::empty())];
        let looked = poll(&mut fds, Some(&Timespec::default()));
        looked.is_err() || fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
    }

    /// Sends what it does not have yet, as far as its socket takes it.
    pub(super) fn send(&mut self, ring: &Ring) {
        let mut chunk = [0; CHUNK];
        self.blocked = false;
        while !self.deaf {
            if self.notice.is_empty() {
                let lost = ring.oldest().saturating_sub(self.position);
                if lost > 0 {
                    self.position += lost;
                    self.notice = format!("\r\n[hearth: {lost} bytes of output skipped]\r\n").into();
                }
            }
            let is_notice = !self.notice.is_empty();
            let bytes = if is_notice {
                &self.notice
            } else {
                let len = ring.read_at(self.position, &mut chunk);
                &chunk[..len]
            };
            if bytes.is_empty() {
                return;
            }
            match self.stream.write(bytes) {
                Ok(len) if is_notice => drop(self.notice.drain(..len)),
                Ok(len) => self.position += len as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_later(&error) => {
                    self.blocked = true;
                    return;
                }
                Err(_) => self.hang_up(),
            }
        }
    }

    /// Receives no more than `buffer` holds; nothing where nothing is there yet.
    pub(super) fn receive<'a>(&mut self, buffer: &'a mut [u8]) -> &'a [u8] {
        match self.stream.read(buffer) {
            Ok(0) => self.silent = true,
            Ok(len) => return &buffer[..len],
            Err(error) if is_later(&error) => {}
            Err(_) => {
                self.silent = true;
                self.hang_up();
            }
        }
        &[]
    }

    /// Throws away what it sends while another is the writer, and says so the first time.
    pub(super) fn refuse(&mut self) {
        let mut ignored = [0; CHUNK];
        if !self.receive(&mut ignored).is_empty() && !self.told {
            self.told = true;
            self.notice
                .extend_from_slice(b"\r\n[hearth: another connection types here]\r\n");
        }
    }

    /// Another may be the writer now.
    pub(super) fn forget_refusal(&mut self) {
        self.told = false;
    }

    /// Waits for what can go on: room in its socket, and, if `input` is wanted, what it sends. One whose input
    /// must wait is not watched for its end either, which would be reported over and over.
    pub(super) fn watch(&mut self, epoll: &Epoll, input: bool) -> io::Result<()> {
        let mut events = EventSet::empty();
        events.set(EventSet::IN, input && !self.silent);
        events.set(EventSet::OUT, self.blocked);
        let wanted = (!events.is_empty() || self.silent).then_some(events);
        let fd = self.stream.as_raw_fd();
        match (self.watched, wanted) {
            (before, after) if before == after => return Ok(()),
            (None, Some(events)) => watch(epoll, ControlOperation::Add, fd, events)?,
            (Some(_), Some(events)) => watch(epoll, ControlOperation::Modify, fd, events)?,
            (_, None) => watch(epoll, ControlOperation::Delete, fd, EventSet::empty())?,
        }
        self.watched = wanted;
        Ok(())
    }
}

impl AsRawFd for Client {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}
