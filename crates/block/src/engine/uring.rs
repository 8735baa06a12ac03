//! The engine that hands reads and writes to the kernel in batches.
//!
//! A request whose bytes lie in the disk's backings becomes one operation of the ring for each extent; all else,
//! and what the kernel did only half, goes to the pool. Guest memory is not registered with the ring: that would
//! pin every page of it, so that the balloon could give none back, and a page that was given back and came anew
//! would not be the one that the kernel writes to.
//!
//! The thread sleeps in the ring too: for all that it watches the ring has a poll that stays, so that one system
//! call sets requests off and waits for whatever comes first.
//!
//! What goes through the page cache is mostly copying. Writes are done at once, by the submitting thread: most file
//! systems would have the ring hand each of them to a thread of its own. So are large reads, one after the other,
//! for the kernel to see what to read ahead. Small reads have the ring wait for the disk.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::thread;

use io_uring::squeue::Entry;
use io_uring::{IoUring, Probe, cqueue, opcode, types};

use super::bounce::{Bounce, Spare};
use super::buffers::{as_iovecs, slice};
use super::pool::{Client, transfer};
use super::{Completion, Engine, Operation, Pool, Request, Segment, fits};
use crate::{Access, Disk, Place};

mod bounced;

/// Extents of a request that are worth an operation each. A power of two.
const MAX_PARTS: usize = 64;
/// Bytes of a read through the page cache that others wait for.
const LARGE: u64 = 128 << 10;
/// `user_data` holds the number of a request here, above it that of an operation of it, and above that the bytes that it
/// moves; or the number of a watch, and above it nothing.
const NUMBER_BITS: u32 = 20;
const BYTES_AT: u32 = NUMBER_BITS + MAX_PARTS.ilog2();

pub struct Uring {
    ring: IoUring,
    /// A ring belongs to the thread that enables it.
    enabled: bool,
    disk: Arc<dyn Disk>,
    /// Whether each backing does direct I/O.
    direct: Vec<bool>,
    requests: Vec<Option<InFlight>>,
    free: Vec<usize>,
    in_ring: usize,
    /// Whether what a backing holds is encrypted, of any.
    encrypted: bool,
    /// Bytes of bounces in flight.
    bounced: usize,
    spare: Spare,
    /// What ended when it was submitted.
    done: Vec<Completion>,
    watches: Vec<Watch>,
    /// Something watched was readable since the last sleep.
    woken: bool,
    /// Why something cannot be watched any more.
    blind: Option<io::Error>,
    /// What has ended, as the ring says.
    results: Vec<Moved>,
    /// Does what the ring cannot.
    pool: Client,
}

/// A descriptor whose becoming readable ends a sleep.
struct Watch {
    source: RawFd,
    /// The kernel has a poll for it.
    set: bool,
}

/// What became of an operation.
struct Moved {
    request: usize,
    /// Of its operations.
    part: usize,
    /// Bytes that it should have moved, and those that it did, or an error.
    bytes: u64,
    result: i32,
}

/// A request whose operations the kernel has.
struct InFlight {
    request: Request,
    /// Each extent's share of the buffers, where there is more than one extent. Here because the kernel reads
    /// them until the operations are set off.
    shares: Vec<Vec<Segment>>,
    /// What the operations move to and from, by their numbers, where the disk is encrypted.
    bounces: Vec<Option<Bounce>>,
    operations: usize,
    outcome: Outcome,
}

impl InFlight {
    fn new(request: Request, shares: Vec<Vec<Segment>>) -> Self {
        Self {
            request,
            shares,
            bounces: Vec::new(),
            operations: 0,
            outcome: Outcome::Good,
        }
    }
}

enum Outcome {
    Good,
    /// The pool shall do it again from the start.
    Again,
    Bad(io::Error),
}

impl Uring {
    /// # Errors
    /// The kernel has no `io_uring`, or one that is too old, or does not let us have it.
    pub fn new(disk: Arc<dyn Disk>, pool: &Arc<Pool>, depth: u16) -> io::Result<Uring> {
        let ring = ring(depth)?;
        let backings = disk.backings();
        let direct = backings.iter().map(|backing| backing.is_direct()).collect();
        let files: Vec<RawFd> = backings.iter().map(|it| it.as_fd().as_raw_fd()).collect();
        let encrypted = (0..files.len()).any(|backing| disk.cipher(backing).is_some());
        ring.submitter().register_files(&files)?;
        drop(backings);
        let pool = Client::new(pool)?;
        let mailbox = Watch {
            source: pool.event().as_raw_fd(),
            set: false,
        };
        Ok(Uring {
            ring,
            enabled: false,
            disk,
            direct,
            requests: Vec::new(),
            free: Vec::new(),
            in_ring: 0,
            encrypted,
            bounced: 0,
            spare: Spare::default(),
            done: Vec::new(),
            watches: vec![mailbox],
            woken: false,
            blind: None,
            results: Vec::new(),
            pool,
        })
    }

    /// The extents of a transfer, if the ring can move them all.
    fn plan(&self, request: &Request, access: Access) -> Option<(Vec<Place>, Vec<Vec<Segment>>)> {
        let (mut places, mut shares) = (Vec::new(), Vec::new());
        let mut done = 0;
        while done < request.len {
            let extent = self
                .disk
                .locate(request.offset + done, request.len - done, access);
            let place = extent.place?;
            let direct = *self.direct.get(place.backing)?;
            if done == 0 && extent.len == request.len {
                return fits(direct, place.offset, &request.buffers).then(|| (vec![place], Vec::new()));
            }
            let mut share = Vec::new();
            slice(&request.buffers, done, extent.len, &mut share);
            if places.len() == MAX_PARTS || !fits(direct, place.offset, &share) {
                return None;
            }
            places.push(place);
            shares.push(share);
            done += extent.len;
        }
        Some((places, shares))
    }

    fn is_cached(&self, places: &[Place]) -> bool {
        let is_cached = |place: &Place| self.direct.get(place.backing) == Some(&false);
        places.iter().any(is_cached)
    }

    /// Puts a planned request into the ring.
    fn begin(&mut self, request: Request, access: Access, places: &[Place], shares: Vec<Vec<Segment>>) {
        let number = self.number();
        let mut in_flight = InFlight::new(request, shares);
        for (part, &place) in places.iter().enumerate() {
            let share = in_flight.shares.get(part).unwrap_or(&in_flight.request.buffers);
            let entry = entry(access, place, share, number, part);
            // SAFETY: the buffers are mapped until the request is reaped, by the contract of `submit`; their
            // list is not touched before that.
            if unsafe { self.push(&entry) }.is_err() {
                in_flight.outcome = Outcome::Again;
                break;
            }
            in_flight.operations += 1;
        }
        self.keep(number, in_flight);
    }

    /// For a request that is about to be begun.
    fn number(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.requests.push(None);
            self.requests.len() - 1
        })
    }

    /// Notes a request until its operations have ended; one without any has ended.
    fn keep(&mut self, number: usize, in_flight: InFlight) {
        if in_flight.operations > 0 {
            self.in_ring += 1;
            self.requests[number] = Some(in_flight);
            return;
        }
        self.free.push(number);
        let InFlight { request, outcome, .. } = in_flight;
        match outcome {
            Outcome::Bad(error) => self.done.push(Completion {
                request,
                result: Err(error),
            }),
            Outcome::Good | Outcome::Again => self.hand_over(request),
        }
    }

    /// # Safety
    /// What the entry points to stays valid until its completion.
    unsafe fn push(&mut self, entry: &Entry) -> io::Result<()> {
        // SAFETY: by contract.
        if unsafe { self.ring.submission().push(entry) }.is_ok() {
            return Ok(());
        }
        self.enter(0)?;
        // SAFETY: by contract.
        unsafe { self.ring.submission().push(entry) }.map_err(|_| io::ErrorKind::QuotaExceeded.into())
    }

    fn hand_over(&mut self, request: Request) {
        // SAFETY: our caller's promise is the one that is asked for.
        unsafe { self.pool.submit(request) };
    }

    /// Lets the kernel take what is in the ring, and do what it has put off for us.
    fn enter(&mut self, wait_for: usize) -> io::Result<()> {
        if !self.enabled {
            self.ring.submitter().register_enable_rings()?;
            self.enabled = true;
        }
        loop {
            match self.ring.submit_and_wait(wait_for) {
                Ok(_) => return Ok(()),
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    // The kernel has too much to do, or too little memory; what it has taken will end.
                    io::ErrorKind::WouldBlock | io::ErrorKind::ResourceBusy => {
                        thread::yield_now();
                        if !self.ring.completion().is_empty() {
                            return Ok(());
                        }
                    }
                    _ => return Err(error),
                },
            }
        }
    }

    /// Has the kernel poll what is watched and not polled.
    fn set_watches(&mut self) -> io::Result<()> {
        for number in 0..self.watches.len() {
            let Some(Watch { source, set: false }) = self.watches.get(number) else {
                continue;
            };
            let poll = opcode::PollAdd::new(types::Fd(*source), libc::POLLIN as u32).multi(true);
            // SAFETY: it points to nothing.
            unsafe { self.push(&poll.build().user_data(number as u64)) }?;
            self.watches[number].set = true;
        }
        Ok(())
    }

    /// Takes what the kernel says, and tells whether it said something.
    fn collect(&mut self) -> bool {
        let mut any = false;
        for entry in self.ring.completion() {
            any = true;
            let number = (entry.user_data() & ((1 << NUMBER_BITS) - 1)) as usize;
            let part = (entry.user_data() >> NUMBER_BITS) as usize % MAX_PARTS;
            let bytes = entry.user_data() >> BYTES_AT;
            if bytes > 0 {
                self.results.push(Moved {
                    request: number,
                    part,
                    bytes,
                    result: entry.result(),
                });
            } else if let Some(watch) = self.watches.get_mut(number) {
                watch.set = cqueue::more(entry.flags());
                self.woken = true;
                if entry.result() < 0 {
                    self.blind = Some(io::Error::from_raw_os_error(-entry.result()));
                }
            }
        }
        any
    }

    /// One operation has ended.
    fn end(&mut self, moved: &Moved, ended: &mut Vec<Completion>) {
        let number = moved.request;
        let Some(in_flight) = self.requests.get_mut(number).and_then(Option::as_mut) else {
            return;
        };
        match u64::try_from(moved.result) {
            Ok(bytes) if bytes == moved.bytes => {}
            // Less than all: the end of a medium, a full one, a signal. The pool finds out.
            Ok(_) => in_flight.outcome = Outcome::Again,
            Err(_) => {
                let error = io::Error::from_raw_os_error(-moved.result);
                in_flight.outcome = match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Outcome::Again,
                    _ => Outcome::Bad(error),
                };
            }
        }
        if let Some(mut bounce) = in_flight.bounces.get_mut(moved.part).and_then(Option::take) {
            let is_read = in_flight.request.operation == Operation::Read;
            if is_read && matches!(in_flight.outcome, Outcome::Good) {
                // SAFETY: the buffers are mapped until the request is reaped, by the contract of `submit`.
                if let Err(error) = unsafe { bounce.give(&in_flight.request.buffers) } {
                    in_flight.outcome = Outcome::Bad(error);
                }
            }
            self.bounced -= bounce.bytes().len();
            self.spare.keep(bounce);
        }
        in_flight.operations -= 1;
        if in_flight.operations > 0 {
            return;
        }
        if let Some(InFlight { request, outcome, .. }) = self.requests[number].take() {
            self.free.push(number);
            self.in_ring -= 1;
            match outcome {
                Outcome::Good => ended.push(Completion {
                    request,
                    result: Ok(()),
                }),
                Outcome::Bad(error) => ended.push(Completion {
                    request,
                    result: Err(error),
                }),
                Outcome::Again => self.hand_over(request),
            }
        }
    }
}

impl Engine for Uring {
    unsafe fn submit(&mut self, request: Request) -> bool {
        let access = match request.operation {
            Operation::Read => Access::Read,
            Operation::Write => Access::Write,
            _ => {
                self.hand_over(request);
                return false;
            }
        };
        if self.encrypted {
            return self.submit_bounced(request, access);
        }
        match self.plan(&request, access) {
            Some((places, _))
                if (access == Access::Write || request.len >= LARGE) && self.is_cached(&places) =>
            {
                let result = transfer(&*self.disk, &request, access);
                self.done.push(Completion { request, result });
                return true;
            }
            Some((places, shares)) if self.requests.len() < 1 << NUMBER_BITS => {
                self.begin(request, access, &places, shares);
            }
            _ => self.hand_over(request),
        }
        false
    }

    fn kick(&mut self) -> io::Result<()> {
        if self.ring.submission().is_empty() {
            return Ok(());
        }
        self.enter(0)
    }

    fn reap(&mut self, ended: &mut Vec<Completion>) {
        ended.append(&mut self.done);
        let mut entered = false;
        loop {
            let any = self.collect();
            let mut results = std::mem::take(&mut self.results);
            for moved in results.drain(..) {
                self.end(&moved, ended);
            }
            self.results = results;
            let submission = self.ring.submission();
            let more = submission.taskrun() || submission.cq_overflow();
            drop(submission);
            // The kernel may set the flag only after it has done what it stands for: then nothing clears it for now.
            let stale = entered && !any;
            // That it fails shows at the next `kick`.
            if !more || stale || self.enter(0).is_err() {
                break;
            }
            entered = true;
        }
        // After what tells of it was taken from the ring.
        self.pool.reap(ended);
    }

    fn in_flight(&self) -> usize {
        self.in_ring + self.done.len() + self.pool.in_flight()
    }

    fn has_ended(&mut self) -> bool {
        !self.done.is_empty()
            || !self.results.is_empty()
            || self.pool.has_ended()
            || !self.ring.completion().is_empty()
    }

    fn watch(&mut self, source: BorrowedFd<'_>) -> io::Result<()> {
        self.watches.push(Watch {
            source: source.as_raw_fd(),
            set: false,
        });
        Ok(())
    }

    fn sleep(&mut self) -> io::Result<()> {
        self.set_watches()?;
        let nothing_yet = self.done.is_empty() && self.results.is_empty() && !self.woken;
        self.enter(nothing_yet.into())?;
        self.collect();
        self.woken = false;
        self.blind.take().map_or(Ok(()), Err)
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        let mut ended = Vec::new();
        while self.in_ring > 0 {
            if self.enter(1).is_err() {
                // The kernel may still write to memory that is about to be unmapped.
                std::process::abort();
            }
            self.reap(&mut ended);
        }
    }
}

fn entry(access: Access, place: Place, share: &[Segment], number: usize, part: usize) -> Entry {
    let file = types::Fixed(place.backing as u32);
    let bytes: u64 = share.iter().map(|segment| segment.len() as u64).sum();
    let entry = match (access, share) {
        // One piece needs no list.
        (Access::Read, [one]) if u32::try_from(one.len()).is_ok() => {
            opcode::Read::new(file, one.address(), one.len() as u32)
                .offset(place.offset)
                .build()
        }
        (Access::Write, [one]) if u32::try_from(one.len()).is_ok() => {
            opcode::Write::new(file, one.address(), one.len() as u32)
                .offset(place.offset)
                .build()
        }
        (Access::Read, _) => opcode::Readv::new(file, as_iovecs(share), share.len() as u32)
            .offset(place.offset)
            .build(),
        (Access::Write, _) => opcode::Writev::new(file, as_iovecs(share), share.len() as u32)
            .offset(place.offset)
            .build(),
    };
    entry.user_data(bytes << BYTES_AT | (part as u64) << NUMBER_BITS | number as u64)
}

/// A ring that no thread has enabled yet.
fn ring(depth: u16) -> io::Result<IoUring> {
    let entries = u32::from(depth).max(1);
    IoUring::builder()
        .dontfork()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_r_disabled()
        .build(entries)
        // Before Linux 6.1.
        .or_else(|_| IoUring::builder().dontfork().setup_r_disabled().build(entries))
}

/// Fails if there is no `io_uring` for us that can do what we need.
pub(super) fn probe() -> io::Result<()> {
    let ring = ring(1)?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let needed = [
        opcode::Read::CODE,
        opcode::Write::CODE,
        opcode::Readv::CODE,
        opcode::Writev::CODE,
        opcode::PollAdd::CODE,
    ];
    let params = ring.params();
    // Polls that stay came with the resource tags, in Linux 5.13, and cannot be asked for.
    if params.is_feature_nodrop()
        && params.is_feature_resource_tagging()
        && needed.iter().all(|&code| probe.is_supported(code))
    {
        Ok(())
    } else {
        Err(io::ErrorKind::Unsupported.into())
    }
}
