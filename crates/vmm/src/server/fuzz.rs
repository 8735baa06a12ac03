//! Hostile clients of the control socket, and a machine that is none.
//!
//! Each line of a client that stays is answered, in order: with an error if and only if it is no request.

use std::collections::VecDeque;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use vmm_sys_util::epoll::{Epoll, EpollEvent};

use super::{Asked, ClientId, Server};
use crate::control::{DESCRIPTOR_LIMIT, Event, LINE_LIMIT, Message, Reply, Request, send};
use crate::fuzz::Input;

/// Of one input: more only take longer.
const STEPS: usize = 200;
const CLIENTS: usize = 3;
/// What a client may make the monitor keep: one reading, a line, and answers that it does not read.
const MOST_BYTES: usize = 2 * LINE_LIMIT + (64 << 10) + (4 << 10);
/// Of one line, and of what is read with its end.
const MOST_DESCRIPTORS: usize = 2 * DESCRIPTOR_LIMIT;

pub(crate) fn clients(input: &[u8]) {
    let mut input = Input(input);
    let mut bench = Bench::new();
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        bench.step(&mut input);
        for connection in bench.server.clients.values() {
            let (bytes, descriptors) = connection.held();
            assert!(bytes <= MOST_BYTES, "{bytes} bytes are kept for one client");
            assert!(
                descriptors <= MOST_DESCRIPTORS,
                "{descriptors} descriptors are kept"
            );
        }
    }
    bench.finish();
}

struct Bench {
    server: Server,
    epoll: Epoll,
    address: SocketAddr,
    clients: Vec<Client>,
    /// Requests that the machine is still busy with.
    pending: VecDeque<ClientId>,
    /// Whether every descriptor that came along is closed again: then its reader is at the end.
    reader: io::PipeReader,
    writer: io::PipeWriter,
}

impl Bench {
    fn new() -> Self {
        let thread = rustix::thread::gettid().as_raw_nonzero();
        let name = format!("hearth-fuzz-control-{thread}");
        let address = SocketAddr::from_abstract_name(name).unwrap();
        let epoll = Epoll::new().unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        let server = Server::new(listener, &epoll).unwrap();
        let (reader, writer) = io::pipe().unwrap();
        Self {
            server,
            epoll,
            clients: (0..CLIENTS).map(|_| Client::connect(&address)).collect(),
            address,
            pending: VecDeque::new(),
            reader,
            writer,
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let what = input.byte();
        let descriptors = vec![self.writer.as_fd(); usize::from(input.byte())];
        let client = usize::from(what >> 4) % CLIENTS;
        let hands = match what & 8 {
            0 => &[],
            _ => descriptors.as_slice(),
        };
        match what % 8 {
            0 | 1 => {
                let len = input.byte();
                self.clients[client].write(input.bytes(len.into()), hands);
            }
            2 => {
                let request = &Request::NAMES[usize::from(input.byte()) % Request::NAMES.len()];
                self.clients[client].write(format!("\"{request}\"\n").as_bytes(), hands);
            }
            3 => {
                let (byte, len) = (input.byte(), input.number(2) as usize % (2 * LINE_LIMIT));
                self.clients[client].write(&vec![byte; len], hands);
            }
            4 => drop(self.turn(input.byte().is_multiple_of(2))),
            5 => _ = self.clients[client].read(),
            6 => {
                let event = Event::Reset { boots: 7 };
                for _ in 0..=input.byte() {
                    self.server.announce(&event, &self.epoll);
                }
            }
            _ => match input.byte() {
                0 => self.clients[client] = Client::connect(&self.address),
                1 => drop(self.clients[client].stream.shutdown(std::net::Shutdown::Read)),
                _ => self.answer(),
            },
        }
    }

    /// What the lifecycle does once something is ready; the machine answers at once or later.
    fn turn(&mut self, at_once: bool) -> bool {
        let mut ready = [EpollEvent::default(); 4];
        let count = self.epoll.wait(0, &mut ready).unwrap();
        for event in &ready[..count] {
            assert!(self.server.handle(event, &self.epoll));
        }
        let mut busy = count > 0;
        while let Some(Asked {
            client, descriptors, ..
        }) = self.server.next_request(&self.epoll)
        {
            assert!(descriptors.len() <= MOST_DESCRIPTORS);
            busy = true;
            self.pending.push_back(client);
            if at_once {
                self.answer();
            }
        }
        busy
    }

    fn answer(&mut self) {
        if let Some(client) = self.pending.pop_front() {
            self.server.reply(client, Reply::Ok, &self.epoll);
        }
    }

    /// Everybody reads and is answered until nothing happens any more; then everybody leaves.
    fn finish(mut self) {
        loop {
            let mut busy = self.turn(true) || !self.pending.is_empty();
            self.answer();
            for client in &mut self.clients {
                // Events make room for answers, too.
                busy |= client.read() > 0;
            }
            if !busy {
                break;
            }
        }
        for client in &self.clients {
            assert!(
                client.is_gone || client.expected.is_empty(),
                "{} lines have no answer",
                client.expected.len()
            );
        }
        let (reader, clients) = (self.reader, self.clients);
        drop((self.server, self.writer, clients));
        assert_eq!((&reader).read(&mut [0]).unwrap(), 0);
    }
}

struct Client {
    stream: UnixStream,
    /// The line that is begun.
    line: Vec<u8>,
    /// For each line that is not answered yet, whether it is a request.
    expected: VecDeque<bool>,
    input: Vec<u8>,
    /// The server has closed the connection, or this end does not read.
    is_gone: bool,
}

impl Client {
    fn connect(address: &SocketAddr) -> Self {
        let stream = UnixStream::connect_addr(address).unwrap();
        stream.set_nonblocking(true).unwrap();
        Self {
            stream,
            line: Vec::new(),
            expected: VecDeque::new(),
            input: Vec::new(),
            is_gone: false,
        }
    }

    fn write(&mut self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        if bytes.is_empty() {
            return;
        }
        let Ok(sent) = send(&self.stream, bytes, descriptors) else {
            // The socket is full or closed, or these are too many descriptors.
            return;
        };
        for piece in bytes[..sent].split_inclusive(|&byte| byte == b'\n') {
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                self.expected
                    .push_back(serde_json::from_slice::<Request>(&line).is_ok());
            }
        }
    }

    /// Reads what there is, says how many bytes, and judges the answers among them.
    fn read(&mut self) -> usize {
        let mut chunk = [0; 4096];
        let mut total = 0;
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => self.is_gone = true,
                Ok(len) => {
                    self.input.extend_from_slice(&chunk[..len]);
                    total += len;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => self.is_gone = true,
            }
            break;
        }
        while let Some(end) = self.input.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.input.drain(..=end).collect();
            if let Message::Reply(reply) = serde_json::from_slice(&line).unwrap() {
                let is_request = self.expected.pop_front().expect("an answer to nothing");
                assert_eq!(reply == Reply::Ok, is_request, "{}", line.escape_ascii());
            }
        }
        total
    }
}
