//! One client of the control socket: its lines with their descriptors, and what it has not read yet.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use vmm_sys_util::epoll::EventSet;

use super::ClientId;
use crate::control::{DESCRIPTOR_LIMIT, LINE_LIMIT, Message, receive};

/// Bytes that a client may leave unread before its next message.
const BACKLOG_LIMIT: usize = 64 << 10;

/// A line and the descriptors that came with it.
#[derive(Default)]
pub(super) struct Line {
    pub(super) bytes: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
}

pub(super) struct Connection {
    pub(super) id: ClientId,
    pub(super) stream: UnixStream,
    /// Whole lines that wait for their turn: at most a chunk's.
    lines: VecDeque<Line>,
    /// The beginning of the next line.
    partial: Line,
    output: Vec<u8>,
    /// A request is being carried out: nothing more is read until it is answered.
    busy: bool,
}

impl Connection {
    pub(super) fn new(id: ClientId, stream: UnixStream) -> Self {
        Self {
            id,
            stream,
            lines: VecDeque::new(),
            partial: Line::default(),
            output: Vec::new(),
            busy: false,
        }
    }

    /// What to wait for.
    pub(super) fn interest(&self) -> EventSet {
        let mut interest = EventSet::empty();
        if !self.busy && self.lines.is_empty() {
            interest |= EventSet::IN;
        }
        if !self.output.is_empty() {
            interest |= EventSet::OUT;
        }
        interest
    }

    /// Reads once. Descriptors belong to the line whose byte was the last to be read with them.
    pub(super) fn receive(&mut self) -> io::Result<()> {
        let mut chunk = [0; LINE_LIMIT];
        let mut descriptors = Vec::new();
        let len = match receive(&self.stream, &mut chunk, &mut descriptors) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => len,
            Err(error) if is_later(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut pieces = chunk[..len].split_inclusive(|&byte| byte == b'\n').peekable();
        while let Some(piece) = pieces.next() {
            self.partial.bytes.extend_from_slice(piece);
            if pieces.peek().is_none() {
                self.partial.descriptors.append(&mut descriptors);
            }
            let ends = piece.ends_with(b"\n");
            if self.partial.bytes.len() - usize::from(ends) >= LINE_LIMIT {
                return Err(io::Error::other("a request's line is too long"));
            }
            if ends {
                self.lines.push_back(std::mem::take(&mut self.partial));
            }
        }
        if self.partial.descriptors.len() > DESCRIPTOR_LIMIT {
            return Err(io::Error::other("too many descriptors for one request"));
        }
        Ok(())
    }

    /// The next request's line, unless the one before it is not answered yet.
    pub(super) fn next_line(&mut self) -> Option<Line> {
        if self.busy {
            return None;
        }
        let line = self.lines.pop_front()?;
        self.busy = true;
        Some(line)
    }

    /// The line that was handed out is answered.
    pub(super) fn answered(&mut self) {
        self.busy = false;
    }

    pub(super) fn push(&mut self, message: &Message) -> io::Result<()> {
        // Before the message and not with it: one answer may be long, and we know how long.
        if self.output.len() > BACKLOG_LIMIT {
            return Err(io::Error::other("the client does not read"));
        }
        serde_json::to_writer(&mut self.output, message)?;
        self.output.push(b'\n');
        Ok(())
    }

    /// Sends what the socket takes.
    pub(super) fn send(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => drop(self.output.drain(..len)),
                Err(error) if is_later(&error) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(any(test, feature = "testing"))]
impl Connection {
    /// Bytes and descriptors that this client has the monitor keep.
    pub(super) fn held(&self) -> (usize, usize) {
        let lines = || self.lines.iter().chain([&self.partial]);
        let bytes: usize = lines().map(|line| line.bytes.len()).sum();
        (
            bytes + self.output.len(),
            lines().map(|line| line.descriptors.len()).sum(),
        )
    }
}

/// Whether a non-blocking descriptor can go on at another time.
pub(crate) fn is_later(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
