//! The console's thread: moves output from the line to the ring and to readers, and keys to the guest.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::Port;
use super::client::Client;
use super::line::Line;
use super::ring::Ring;
use crate::legacy::serial::FIFO_SIZE;
use crate::server::watch;

/// Between two looks at a guest that prints without a pause.
const PACE: Duration = Duration::from_millis(5);
/// How long the last output waits for slow readers when the monitor ends.
const FAREWELL: Duration = Duration::from_millis(200);
const CLIENT_LIMIT: usize = 16;

pub(super) enum Message {
    /// There is another serial port.
    Attach(Port),
    End,
}

pub(super) struct Worker {
    ring: Ring,
    line: Line,
    inbox: Receiver<Message>,
    listener: Option<UnixListener>,
    epoll: Epoll,
    clients: BTreeMap<RawFd, Client>,
    writer: Option<RawFd>,
    port: Port,
    /// Swapped with the line's buffer, so that neither is allocated again.
    output: VecDeque<u8>,
}

impl Worker {
    pub(super) fn new(
        ring: Ring,
        line: Line,
        inbox: Receiver<Message>,
        listener: Option<UnixListener>,
    ) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        watch(&epoll, ControlOperation::Add, line.as_raw_fd(), EventSet::IN)?;
        if let Some(listener) = &listener {
            listener.set_nonblocking(true)?;
            watch(&epoll, ControlOperation::Add, listener.as_raw_fd(), EventSet::IN)?;
        }
        Ok(Self {
            ring,
            line,
            inbox,
            listener,
            epoll,
            clients: BTreeMap::new(),
            writer: None,
            port: Port::new(),
            output: VecDeque::new(),
        })
    }

    /// Takes a connection in, at the beginning of the history.
    pub(super) fn welcome(&mut self, stream: UnixStream) -> io::Result<()> {
        let mut client = Client::new(stream, self.ring.oldest())?;
        client.send(&self.ring);
        self.clients.insert(client.as_raw_fd(), client);
        Ok(())
    }

    pub(super) fn run(mut self) {
        let mut ready = [EpollEvent::default(); 16];
        let mut timeout = None;
        loop {
            self.update();
            let count = wait(&self.epoll, timeout, &mut ready);
            let mut woken = timeout.is_some();
            for event in &ready[..count] {
                let fd = event.data() as RawFd;
                if fd == self.line.as_raw_fd() {
                    self.line.quiet();
                    woken = true;
                } else if self.clients.contains_key(&fd) {
                    self.serve(fd, event.event_set());
                } else {
                    self.accept();
                }
            }
            let ending = self.read_inbox();
            let moved = woken && self.move_output();
            if ending {
                return self.say_farewell();
            }
            // While output comes, the line is looked at every so often; else its bell tells.
            timeout = (moved || self.line.await_output()).then_some(PACE);
        }
    }

    /// Says whether the console ends.
    fn read_inbox(&mut self) -> bool {
        for message in self.inbox.try_iter() {
            match message {
                Message::Attach(port) => self.port = port,
                Message::End => return true,
            }
        }
        false
    }

    /// Says whether there was any.
    fn move_output(&mut self) -> bool {
        self.output.clear();
        let lost = self.line.take(&mut self.output);
        if self.output.is_empty() {
            return false;
        }
        self.ring.skip(lost);
        let (first, second) = self.output.as_slices();
        for bytes in [first, second] {
            if let Err(error) = self.ring.append(bytes) {
                tracing::warn!(%error, "writing the console's history");
            }
        }
        // A blocked one goes on when its socket says so.
        for client in self.clients.values_mut().filter(|client| !client.blocked) {
            client.send(&self.ring);
        }
        true
    }

    fn accept(&mut self) {
        // One for each event: the epoll is level-triggered.
        let Some(Ok((stream, _))) = self.listener.as_ref().map(UnixListener::accept) else {
            return;
        };
        if self.clients.len() >= CLIENT_LIMIT {
            self.clients.retain(|_, client| !client.has_hung_up());
        }
        if self.clients.len() >= CLIENT_LIMIT {
            return;
        }
        if let Err(error) = self.welcome(stream) {
            tracing::debug!(%error, "console client");
        }
    }

    fn serve(&mut self, fd: RawFd, events: EventSet) {
        let room = self.room();
        let Some(client) = self.clients.get_mut(&fd) else {
            return;
        };
        if events.intersects(EventSet::HANG_UP | EventSet::ERROR) {
            client.hang_up();
        }
        if events.contains(EventSet::OUT) {
            client.send(&self.ring);
        }
        if !events.contains(EventSet::IN) {
            return;
        }
        if self.writer.is_some_and(|writer| writer != fd) {
            client.refuse();
            client.send(&self.ring);
            return;
        }
        let mut keys = [0; FIFO_SIZE];
        let room = room.min(keys.len());
        if room == 0 {
            return;
        }
        let keys = client.receive(&mut keys[..room]);
        if !keys.is_empty() {
            self.writer = Some(fd);
            if let Some(port) = self.port.upgrade() {
                port.type_in(keys);
            }
        }
    }

    /// How many keys the guest's FIFO takes; where it takes none, the bell will tell when it has been read.
    fn room(&self) -> usize {
        let Some(port) = self.port.upgrade() else {
            return 0;
        };
        if port.room() == 0 {
            self.line.await_room();
        }
        port.room()
    }

    /// Brings up to date who is there, who writes, and what is waited for.
    fn update(&mut self) {
        self.clients.retain(|_, client| !client.is_over());
        let holds = |writer| {
            self.clients
                .get(&writer)
                .is_some_and(|client| !client.is_silent())
        };
        if self.writer.is_some_and(|writer| !holds(writer)) {
            self.writer = None;
            self.clients.values_mut().for_each(Client::forget_refusal);
        }
        let room = self.room() > 0;
        let writer = self.writer;
        let epoll = &self.epoll;
        self.clients.retain(|&fd, client| {
            let input = room || writer.is_some_and(|writer| writer != fd);
            match client.watch(epoll, input) {
                Ok(()) => true,
                Err(error) => {
                    tracing::debug!(%error, "watching a console client");
                    false
                }
            }
        });
    }

    /// Gives readers a moment for what they do not have yet.
    fn say_farewell(mut self) {
        let until = Instant::now() + FAREWELL;
        let mut ready = [EpollEvent::default(); CLIENT_LIMIT];
        loop {
            self.clients.retain(|_, client| {
                client.send(&self.ring);
                client.blocked && client.watch(&self.epoll, false).is_ok()
            });
            let left = until.saturating_duration_since(Instant::now());
            if self.clients.is_empty() || left.is_zero() {
                return;
            }
            wait(&self.epoll, Some(left), &mut ready);
        }
    }
}

/// How many events there are; an interrupted or failed wait has none.
fn wait(epoll: &Epoll, timeout: Option<Duration>, ready: &mut [EpollEvent]) -> usize {
    // Rounded up: none may end before its time and be repeated at once.
    let millis = timeout.map_or(-1, |timeout| {
        i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX) + 1
    });
    epoll.wait(millis, ready).unwrap_or(0)
}
