//! The I/O of a block queue: takes what is available, keeps the engine busy, gives back what has ended, and
//! interrupts once for all of that.

use std::hint;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Instant;

use hearth_block::Disk;
use hearth_block::engine::{self, Completion, Engine, Operation, Pool, Pooled, Segment};

use super::device::QUEUE_SIZE;
use super::in_flight::{InFlight, Requests};
use super::patience::{LOOK, Patience};
use super::request::{HEADER_LEN, Parsed, Range, Request, SERIAL_LEN, Status, Target};
use crate::limits::Throttle;
use crate::metrics::QueueMeter;
use crate::virtio::chain::{Buffers, Chain};
use crate::virtio::interrupt::ConfigInterrupt;
use crate::virtio::queue::{QueueError, Virtqueue};
use crate::virtio::worker::Stop;

/// Requests in flight: a driver that plays by the rules has no more.
const DEPTH: usize = QUEUE_SIZE as usize;
/// Failed requests that are logged, per activation: a full disk fails every write.
const LOGGED_FAILURES: u32 = 16;

/// What a queue's worker works with.
pub(super) struct Served {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) pool: Arc<Pool>,
    /// The engine may be an `io_uring`.
    pub(super) uring: bool,
    pub(super) serial: [u8; SERIAL_LEN],
    pub(super) read_only: bool,
    /// Flush after each write, for a driver that does not do it.
    pub(super) write_through: bool,
    /// The driver may discard, and write zeroes.
    pub(super) discards: bool,
    pub(super) zeroes: bool,
    pub(super) throttle: Throttle,
    pub(super) meter: QueueMeter,
}

impl Served {
    fn engine(&self) -> io::Result<Box<dyn Engine>> {
        if self.uring {
            return engine::start(&self.disk, &self.pool, QUEUE_SIZE);
        }
        Ok(Box::new(Pooled::new(&self.pool)?))
    }
}

/// Why a queue is served no more.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error("the disk's engine failed: {0}")]
    Engine(#[from] io::Error),
}

enum Popped {
    Request(usize),
    /// It is answered.
    Refused,
    Nothing,
}

pub(super) struct BlockWorker {
    /// Before the queue, whose guest memory it writes to until it is dropped.
    engine: Box<dyn Engine>,
    queue: Virtqueue,
    with: Served,
    requests: Requests,
    /// The request that waits for the rate limit.
    held: Option<usize>,
    /// Chains are in the used ring that the driver has not been shown.
    answered: bool,
    /// The engine has done something at once.
    done: bool,
    patience: Patience,
    ended: Vec<Completion>,
    /// Empty, and kept for their memory.
    buffers: Vec<Vec<Segment>>,
    failures: u32,
}

impl BlockWorker {
    /// Serves the queue until it is stopped or broken, and then says so to the driver.
    pub(super) fn run(
        queue: Virtqueue,
        with: Served,
        stop: &Stop,
        config_interrupt: &ConfigInterrupt,
    ) -> Virtqueue {
        // Here and not where the thread is started: a ring is this thread's own.
        let started = with.engine().and_then(|mut engine| {
            for source in [queue.as_raw_fd(), stop.as_raw_fd(), with.throttle.as_raw_fd()] {
                // SAFETY: each is open as long as its owner, and these outlive the engine.
                engine.watch(unsafe { BorrowedFd::borrow_raw(source) })?;
            }
            Ok(engine)
        });
        let engine = match started {
            Ok(engine) => engine,
            Err(error) => {
                config_interrupt.needs_reset(&error);
                return queue;
            }
        };
        let mut worker = Self {
            engine,
            queue,
            with,
            requests: Requests::default(),
            held: None,
            answered: false,
            done: false,
            patience: Patience::default(),
            ended: Vec::new(),
            buffers: Vec::new(),
            failures: 0,
        };
        let served = worker.serve(stop);
        if let Err(error) = served.and(worker.drain()) {
            config_interrupt.needs_reset(&error);
        }
        let Self { engine, queue, .. } = worker;
        drop(engine);
        queue
    }

    fn serve(&mut self, stop: &Stop) -> Result<(), Fault> {
        loop {
            self.queue.disable_doorbell()?;
            let ended = self.give_back()?;
            if stop.requested() {
                return Ok(());
            }
            let taken = self.take(stop)?;
            // What is answered without the engine, or by it at once, does not wait for a sleep to end.
            if self.answered || self.engine.has_ended() {
                self.engine.kick()?;
                continue;
            }
            if ended > 0 && taken == 0 && self.look_for_more(stop)? {
                continue;
            }
            let wants_more = self.held.is_none() && self.requests.len() < DEPTH;
            if wants_more && self.queue.enable_doorbell()? {
                self.engine.kick()?;
                continue;
            }
            self.engine.sleep()?;
        }
    }

    /// Looks for the next request, or the end of another, for a moment, if that has paid lately.
    fn look_for_more(&mut self, stop: &Stop) -> Result<bool, QueueError> {
        if !self.patience.looks() {
            return Ok(false);
        }
        let begun = Instant::now();
        let found = loop {
            if self.queue.has_available()? || self.engine.has_ended() {
                break true;
            }
            if stop.requested() || begun.elapsed() >= LOOK {
                break false;
            }
            hint::spin_loop();
        };
        self.patience.learn(found);
        Ok(found)
    }

    /// Ends what is in flight; puts back what waits for the rate limit.
    fn drain(&mut self) -> Result<(), Fault> {
        if let Some(number) = self.held.take() {
            self.requests.remove(number);
            self.queue.undo_pop();
            self.with.throttle.end_wait(Instant::now());
        }
        // Also what was answered before a chain that was broken.
        self.give_back()?;
        while self.engine.in_flight() > 0 {
            self.engine.sleep()?;
            self.give_back()?;
        }
        Ok(())
    }

    /// Takes at most a ring's worth of requests, so that a driver that never stops adding gets its answers, and
    /// says how many.
    fn take(&mut self, stop: &Stop) -> Result<usize, QueueError> {
        for taken in 0..DEPTH {
            let number = match self.held.take() {
                Some(number) => number,
                None if stop.requested() || self.requests.len() >= DEPTH => return Ok(taken),
                None => match self.pop()? {
                    Popped::Request(number) => number,
                    Popped::Refused => continue,
                    Popped::Nothing => return Ok(taken),
                },
            };
            if !self.admit(number) {
                self.held = Some(number);
                return Ok(taken);
            }
            self.begin(number)?;
            if std::mem::take(&mut self.done) {
                // The driver can do something with it while the next one is done.
                return Ok(taken + 1);
            }
        }
        Ok(DEPTH)
    }

    /// Takes one chain, and answers it if it can be no request.
    fn pop(&mut self) -> Result<Popped, QueueError> {
        let mut chain = self.requests.chain();
        if !self.queue.pop(&mut chain, QUEUE_SIZE.into())? {
            self.requests.recycle(chain);
            return Ok(Popped::Nothing);
        }
        let target = Target {
            size: self.with.disk.size(),
            read_only: self.with.read_only,
            discards: self.with.discards,
            zeroes: self.with.zeroes,
        };
        let parsed = Parsed::parse(&chain, self.queue.memory(), &target);
        let Parsed { status_at, request } = parsed.map_err(|source| self.queue.malformed(source))?;
        match request {
            Ok(request) => Ok(Popped::Request(self.requests.insert(InFlight {
                chain,
                request,
                status_at,
                parts: 0,
                failure: None,
                flushing: false,
                begun: Instant::now(),
            }))),
            Err(status) => {
                self.answer(chain, status_at, status, 0)?;
                Ok(Popped::Refused)
            }
        }
    }

    fn admit(&mut self, number: usize) -> bool {
        let Some(request) = self.requests.get(number) else {
            return true;
        };
        let was_held = self.with.throttle.is_holding();
        let admitted = self.with.throttle.admit(request.operations(), request.len());
        if admitted
            && was_held
            && let Some(operation) = request.operation()
        {
            self.with.meter.throttled(operation, request.begun.elapsed());
        }
        admitted
    }

    /// Gives a request to the engine, or does at once what needs none.
    fn begin(&mut self, number: usize) -> Result<(), QueueError> {
        let Some(in_flight) = self.requests.get(number) else {
            return Ok(());
        };
        match in_flight.request.clone() {
            Request::Read { offset, len } => self.submit_data(number, Operation::Read, offset, len),
            Request::Write { offset, len } => self.submit_data(number, Operation::Write, offset, len),
            Request::Flush => self.submit_range(number, Operation::Flush, 0, 0),
            Request::Discard(ranges) => {
                for Range { offset, len, .. } in ranges {
                    self.submit_range(number, Operation::Discard, offset, len);
                }
            }
            Request::WriteZeroes(ranges) => {
                for Range { offset, len, unmap } in ranges {
                    self.submit_range(number, Operation::WriteZeroes { unmap }, offset, len);
                }
            }
            Request::GetId => {
                let written = in_flight
                    .chain
                    .writable
                    .write(self.queue.memory(), 0, &self.with.serial);
                written.map_err(|source| self.queue.malformed(source))?;
            }
        }
        // Nothing to ask of the engine: its name, or no ranges.
        if self
            .requests
            .get(number)
            .is_some_and(|request| request.parts == 0)
        {
            self.finish(number, Instant::now())?;
        }
        Ok(())
    }

    fn submit_data(&mut self, number: usize, operation: Operation, offset: u64, len: u64) {
        let mut buffers = self.buffers.pop().unwrap_or_default();
        buffers.clear();
        if let Some(in_flight) = self.requests.get(number) {
            let chain = &in_flight.chain;
            let (from, skip) = match operation {
                Operation::Read => (&chain.writable, 0),
                _ => (&chain.readable, HEADER_LEN),
            };
            segments(from, skip, len, &mut buffers);
        }
        self.submit(number, operation, offset, len, buffers);
    }

    fn submit_range(&mut self, number: usize, operation: Operation, offset: u64, len: u64) {
        self.submit(number, operation, offset, len, Vec::new());
    }

    fn submit(&mut self, number: usize, operation: Operation, offset: u64, len: u64, buffers: Vec<Segment>) {
        if let Some(in_flight) = self.requests.get(number) {
            in_flight.parts += 1;
        }
        let request = engine::Request {
            token: number,
            operation,
            offset,
            len,
            buffers,
        };
        // SAFETY: the buffers were checked to lie in guest memory, which is mapped as long as the queue has it;
        // the queue outlives the engine. Nobody makes references into guest memory.
        self.done |= unsafe { self.engine.submit(request) };
    }

    /// Gives back what has ended, interrupts the driver, and says how many parts have ended.
    fn give_back(&mut self) -> Result<usize, QueueError> {
        let mut ended = std::mem::take(&mut self.ended);
        self.engine.reap(&mut ended);
        let count = ended.len();
        let mut now = None;
        for Completion { request, result } in ended.drain(..) {
            self.buffers.push(request.buffers);
            if let Some(in_flight) = self.requests.get(request.token) {
                in_flight.parts -= 1;
                if let Err(error) = result {
                    in_flight.failure.get_or_insert(error);
                }
                if in_flight.parts == 0 {
                    // One look at the clock for all.
                    self.finish(request.token, *now.get_or_insert_with(Instant::now))?;
                }
            }
        }
        self.ended = ended;
        if std::mem::take(&mut self.answered) {
            self.queue.notify()?;
        }
        Ok(count)
    }

    /// All parts of a request have ended, about `now`.
    fn finish(&mut self, number: usize, now: Instant) -> Result<(), QueueError> {
        let Some(in_flight) = self.requests.get(number) else {
            return Ok(());
        };
        let is_write = matches!(in_flight.request, Request::Write { .. } | Request::WriteZeroes(_));
        if self.with.write_through && is_write && in_flight.failure.is_none() && !in_flight.flushing {
            in_flight.flushing = true;
            self.submit_range(number, Operation::Flush, 0, 0);
            return Ok(());
        }
        let Some(request) = self.requests.remove(number) else {
            return Ok(());
        };
        let took = now.saturating_duration_since(request.begun);
        let (status, data) = match &request.failure {
            Some(error) => {
                self.log(&request.request, error);
                // An engine that failed may have filled a part.
                let memory = self.queue.memory();
                request.chain.writable.mark_written(memory, u32::MAX);
                (Status::IoErr, 0)
            }
            None => match request.request {
                Request::Read { len, .. } => (Status::Ok, len),
                Request::GetId => (Status::Ok, SERIAL_LEN as u64),
                _ => (Status::Ok, 0),
            },
        };
        if let Some(operation) = request.operation() {
            match status {
                Status::Ok => self.with.meter.completed(operation, request.len(), took),
                _ => self.with.meter.failed(operation, took),
            }
        }
        self.answer(request.chain, request.status_at, status, data)
    }

    /// Writes the status and puts the chain into the used ring; the driver sees it with the batch.
    fn answer(&mut self, chain: Chain, status_at: u64, status: Status, data: u64) -> Result<(), QueueError> {
        let written = chain
            .writable
            .write(self.queue.memory(), status_at, &[status as u8]);
        written.map_err(|source| self.queue.malformed(source))?;
        // The used length counts bytes from the start without a gap: the status only if all before it is filled.
        let written = if data == status_at { data + 1 } else { data };
        self.queue
            .fill(&chain, u32::try_from(written).unwrap_or(u32::MAX))?;
        self.answered = true;
        self.requests.recycle(chain);
        Ok(())
    }

    fn log(&mut self, request: &Request, error: &io::Error) {
        self.failures = self.failures.saturating_add(1);
        if self.failures <= LOGGED_FAILURES {
            let serial = String::from_utf8_lossy(&self.with.serial);
            tracing::warn!(%error, ?request, serial = serial.trim_end_matches('\0'), "a disk request failed");
        }
    }
}

/// Appends the host's addresses of `len` bytes of `from`, beginning at `skip`.
fn segments(from: &Buffers, skip: u64, len: u64, buffers: &mut Vec<Segment>) {
    let mut left = usize::try_from(len).unwrap_or(usize::MAX);
    for (address, len) in from.host_ranges(skip) {
        let now = len.min(left);
        if now == 0 {
            break;
        }
        buffers.push(Segment::new(address.as_ptr(), now));
        left -= now;
    }
}
