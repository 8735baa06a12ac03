//! A synchronous client of the control socket, for tools and tests.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::{Event, Message, Reply, Request, receive, send};

/// Bytes of a message; a monitor that sends a longer line is none.
const MESSAGE_LIMIT: usize = 4 << 20;
const CHUNK: usize = 16 << 10;

/// A connection to a monitor.
pub struct Client {
    stream: UnixStream,
    input: Vec<u8>,
    /// What came in while a reply was waited for.
    events: VecDeque<Event>,
}

impl Client {
    /// # Errors
    /// Nobody listens at `path`.
    pub fn connect(path: impl AsRef<Path>) -> io::Result<Self> {
        Ok(Self::new(UnixStream::connect(path)?))
    }

    /// Speaks over a connected stream.
    #[must_use]
    pub fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            input: Vec::new(),
            events: VecDeque::new(),
        }
    }

    /// How long to wait for the socket before an error of kind `WouldBlock`; at first, for ever.
    ///
    /// # Errors
    /// The patience is zero.
    pub fn set_patience(&self, patience: Option<Duration>) -> io::Result<()> {
        self.stream.set_read_timeout(patience)?;
        self.stream.set_write_timeout(patience)
    }

    /// # Errors
    /// The connection broke, or patience ran out: later replies are then those to earlier requests.
    pub fn request(&mut self, request: &Request) -> io::Result<Reply> {
        self.request_with(request, &[])
    }

    /// A request with the descriptors that it names by their place in `descriptors`.
    ///
    /// # Errors
    /// As [`Self::request`]; also too many descriptors.
    pub fn request_with(&mut self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> io::Result<Reply> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        let mut sent = send(&self.stream, &line, descriptors)?;
        while sent < line.len() {
            sent += send(&self.stream, &line[sent..], &[])?;
        }
        loop {
            match self.message()? {
                Some(Message::Reply(reply)) => return Ok(reply),
                Some(Message::Event(event)) => self.events.push_back(event),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    /// The next event; `None` once the monitor has ended.
    ///
    /// # Errors
    /// The connection broke, patience ran out, or a reply came that nothing asked for.
    pub fn next_event(&mut self) -> io::Result<Option<Event>> {
        if let Some(event) = self.events.pop_front() {
            return Ok(Some(event));
        }
        match self.message()? {
            Some(Message::Event(event)) => Ok(Some(event)),
            Some(Message::Reply(reply)) => Err(invalid(format!("a reply without request: {reply:?}"))),
            None => Ok(None),
        }
    }

    fn message(&mut self) -> io::Result<Option<Message>> {
        loop {
            if let Some(end) = self.input.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.input.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            if self.input.len() > MESSAGE_LIMIT {
                return Err(invalid("a message without end".into()));
            }
            let mut chunk = [0; CHUNK];
            // A monitor sends no descriptors; any that came would be closed here.
            match receive(&self.stream, &mut chunk, &mut Vec::new()) {
                Ok(0) => return Ok(None),
                Ok(len) => self.input.extend_from_slice(&chunk[..len]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}
