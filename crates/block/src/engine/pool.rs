//! Threads that carry requests out one at a time each, with plain system calls. None of them waits for a base that is on its
//! way: a request that needs what has not come goes back into the line when it has.

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use rustix::event::{EventfdFlags, PollFd, PollFlags, epoll, eventfd, poll};
use rustix::io::Errno;

use super::bounce::{Part, Spare};
use super::buffers::{as_iovecs, gather, scatter, slice};
use super::{Completion, Engine, Operation, Request, Segment, fits};
use crate::scratch::Scratch;
use crate::sectors::is_whole;
use crate::{Access, Backing, Disk, Place, Store};

/// Bytes that are copied at once where the kernel does not move them itself.
const PIECE: u64 = 256 << 10;
/// Bytes; the threads need little, and there are some for each disk.
const STACK: usize = 128 << 10;
/// `IOV_MAX` of Linux.
const MAX_PIECES: usize = 1024;

/// Threads for the requests of one disk, shared by its queues. Dropping it waits for its threads.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    disk: Arc<dyn Disk>,
    jobs: Mutex<Jobs>,
    more: Condvar,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<(Request, Arc<Mailbox>)>,
    closed: bool,
}

/// Starts a thread: [`Builder::spawn`], or one that also puts the thread under the process's rules.
pub type Spawn<'a> = &'a dyn Fn(Builder, Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>>;

impl Pool {
    /// Starts `threads` threads by `spawn`.
    ///
    /// # Errors
    /// The process may not have more of them.
    pub fn new(disk: Arc<dyn Disk>, threads: usize, spawn: Spawn<'_>) -> io::Result<Arc<Pool>> {
        let mut pool = Pool {
            shared: Arc::new(Shared {
                disk,
                jobs: Mutex::default(),
                more: Condvar::new(),
            }),
            threads: Vec::new(),
        };
        for _ in 0..threads {
            let shared = Arc::clone(&pool.shared);
            let builder = Builder::new().name("disk-pool".into()).stack_size(STACK);
            pool.threads
                .push(spawn(builder, Box::new(move || shared.work()))?);
        }
        Ok(Arc::new(pool))
    }

    fn push(&self, request: Request, mailbox: Arc<Mailbox>) {
        lock(&self.shared.jobs).waiting.push_back((request, mailbox));
        self.shared.more.notify_one();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        lock(&self.shared.jobs).closed = true;
        self.shared.more.notify_all();
        for thread in self.threads.drain(..) {
            // One that panicked has ended the process, or a test.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn work(self: &Arc<Self>) {
        while let Some((request, mailbox)) = self.next() {
            if let Some(chunk) = awaits(&*self.disk, &request) {
                self.park(chunk, request, mailbox);
                continue;
            }
            let result = execute(&*self.disk, &request);
            mailbox.put(Completion { request, result });
        }
    }

    /// Leaves a request alone until a chunk of the disk's base has come.
    fn park(self: &Arc<Self>, chunk: u64, request: Request, mailbox: Arc<Mailbox>) {
        let shared = Arc::clone(self);
        let come = move |come: io::Result<()>| match come {
            Ok(()) => {
                lock(&shared.jobs).waiting.push_front((request, mailbox));
                shared.more.notify_one();
            }
            Err(error) => mailbox.put(Completion {
                request,
                result: Err(error),
            }),
        };
        self.disk.fetch(chunk, Box::new(come));
    }

    fn next(&self) -> Option<(Request, Arc<Mailbox>)> {
        let mut jobs = lock(&self.jobs);
        loop {
            if let Some(job) = jobs.waiting.pop_front() {
                return Some(job);
            }
            if jobs.closed {
                return None;
            }
            jobs = self.more.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Where one engine's completions wait for it.
struct Mailbox {
    ended: Mutex<Vec<Completion>>,
    /// There is something, for those who look without the lock.
    any: AtomicBool,
    /// Becomes readable each time that something is there again.
    event: OwnedFd,
}

impl Mailbox {
    fn put(&self, completion: Completion) {
        let mut ended = lock(&self.ended);
        ended.push(completion);
        // The first is enough: whoever wakes up takes all.
        if ended.len() == 1 {
            self.any.store(true, Ordering::Release);
            // It could only fail after 2^64 events that nobody reads.
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
    }
}

/// Gives requests to a pool, and gets them back. Dropping it waits for those that are there.
pub(super) struct Client {
    pool: Arc<Pool>,
    mailbox: Arc<Mailbox>,
    in_flight: usize,
}

impl Client {
    /// # Errors
    /// No descriptor is left.
    pub(super) fn new(pool: &Arc<Pool>) -> io::Result<Client> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Client {
            pool: Arc::clone(pool),
            mailbox: Arc::new(Mailbox {
                ended: Mutex::default(),
                any: AtomicBool::new(false),
                event,
            }),
            in_flight: 0,
        })
    }

    /// # Safety
    /// As [`Engine::submit`].
    pub(super) unsafe fn submit(&mut self, request: Request) {
        self.in_flight += 1;
        self.pool.push(request, Arc::clone(&self.mailbox));
    }

    pub(super) fn has_ended(&self) -> bool {
        self.mailbox.any.load(Ordering::Acquire)
    }

    pub(super) fn reap(&mut self, ended: &mut Vec<Completion>) {
        if self.has_ended() {
            let mut mail = lock(&self.mailbox.ended);
            self.mailbox.any.store(false, Ordering::Relaxed);
            self.in_flight -= mail.len();
            ended.append(&mut mail);
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Becomes readable each time that there is something to be reaped again.
    pub(super) fn event(&self) -> BorrowedFd<'_> {
        self.mailbox.event.as_fd()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // The buffers may be gone after this.
        let mut ended = Vec::new();
        while self.in_flight > 0 {
            let event = self.event();
            while poll(&mut [PollFd::new(&event, PollFlags::IN)], None) == Err(Errno::INTR) {}
            // Whatever comes from here on makes it readable again.
            let _ = rustix::io::read(event, &mut [0; 8]);
            self.reap(&mut ended);
        }
    }
}

/// An engine that gives everything to a pool.
pub struct Pooled {
    client: Client,
    epoll: OwnedFd,
}

impl Pooled {
    /// # Errors
    /// No descriptor is left.
    pub fn new(pool: &Arc<Pool>) -> io::Result<Pooled> {
        let client = Client::new(pool)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        watch(&epoll, client.event())?;
        Ok(Pooled { client, epoll })
    }
}

fn watch(epoll: &OwnedFd, source: BorrowedFd<'_>) -> io::Result<()> {
    let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
    Ok(epoll::add(epoll, source, epoll::EventData::new_u64(0), flags)?)
}

impl Engine for Pooled {
    unsafe fn submit(&mut self, request: Request) -> bool {
        // SAFETY: by contract.
        unsafe { self.client.submit(request) };
        false
    }

    fn kick(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn reap(&mut self, ended: &mut Vec<Completion>) {
        self.client.reap(ended);
    }

    fn in_flight(&self) -> usize {
        self.client.in_flight()
    }

    fn has_ended(&mut self) -> bool {
        self.client.has_ended()
    }

    fn watch(&mut self, source: BorrowedFd<'_>) -> io::Result<()> {
        watch(&self.epoll, source)
    }

    fn sleep(&mut self) -> io::Result<()> {
        let mut events = [const { MaybeUninit::uninit() }; 4];
        loop {
            match epoll::wait(&self.epoll, &mut events, None) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The chunk of the disk's base that a request has to wait for.
fn awaits(disk: &dyn Disk, request: &Request) -> Option<u64> {
    let access = match request.operation {
        Operation::Read => Access::Read,
        Operation::Write | Operation::WriteZeroes { .. } => Access::Write,
        Operation::Flush | Operation::Discard => return None,
    };
    disk.awaits(request.offset, request.len, access)
}

/// Carries a request out.
fn execute(disk: &dyn Disk, request: &Request) -> io::Result<()> {
    let Request { offset, len, .. } = *request;
    match request.operation {
        Operation::Read => transfer(disk, request, Access::Read),
        Operation::Write => transfer(disk, request, Access::Write),
        Operation::Flush => disk.flush(),
        Operation::Discard => disk.discard(offset, len),
        Operation::WriteZeroes { unmap } => disk.write_zeroes(offset, len, unmap),
    }
}

/// Reads or writes at once. The buffers are as [`Engine::submit`] was promised.
pub(super) fn transfer(disk: &dyn Disk, request: &Request, access: Access) -> io::Result<()> {
    let backings = disk.backings();
    let (mut done, mut pieces) = (0, Vec::new());
    while done < request.len {
        let extent = disk.locate(request.offset + done, request.len - done, access);
        pieces.clear();
        slice(&request.buffers, done, extent.len, &mut pieces);
        match extent.place {
            Some(place) if is_sealed(disk, place, extent.len) => {
                let buffers = (&*request.buffers, done);
                bounce_bytes(disk, backings[place.backing], place, extent.len, buffers, access)?;
            }
            Some(place)
                if disk.cipher(place.backing).is_none()
                    && fits(backings[place.backing].is_direct(), place.offset, &pieces) =>
            {
                move_bytes(backings[place.backing], place, &mut pieces, access)?;
            }
            _ => copy_bytes(disk, request.offset + done, extent.len, &pieces, access)?,
        }
        done += extent.len;
    }
    Ok(())
}

/// Lets the kernel read or write the pieces themselves.
fn move_bytes(backing: &Backing, place: Place, pieces: &mut Vec<Segment>, access: Access) -> io::Result<()> {
    let fd = backing.as_fd().as_raw_fd();
    let mut offset = place.offset;
    while !pieces.is_empty() {
        let at = i64::try_from(offset).map_err(io::Error::other)?;
        let count = pieces.len().min(MAX_PIECES) as libc::c_int;
        // SAFETY: the pieces are mapped by the contract of `submit`, and the kernel checks access to them.
        let moved = unsafe {
            match access {
                Access::Read => libc::preadv(fd, as_iovecs(pieces), count, at),
                Access::Write => libc::pwritev(fd, as_iovecs(pieces), count, at),
            }
        };
        match u64::try_from(moved) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(moved) => {
                offset += moved;
                let rest = std::mem::take(pieces);
                slice(&rest, moved, u64::MAX, pieces);
            }
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

/// Whether an extent lies encrypted, and is of whole sectors.
fn is_sealed(disk: &dyn Disk, place: Place, len: u64) -> bool {
    disk.cipher(place.backing).is_some() && is_whole(place.offset, len)
}

/// Reads or writes sectors that lie encrypted, from or to `skip` of the buffers on.
fn bounce_bytes(
    disk: &dyn Disk,
    backing: &Backing,
    place: Place,
    len: u64,
    (buffers, skip): (&[Segment], u64),
    access: Access,
) -> io::Result<()> {
    let mut spare = Spare::default();
    for done in (0..len).step_by(PIECE as usize) {
        let offset = place.offset + done;
        let mut bounce = spare.bounce(Part {
            place: Place { offset, ..place },
            len: (len - done).min(PIECE) as usize,
            skip: skip + done,
            cipher: disk.cipher(place.backing).cloned(),
        });
        match access {
            Access::Read => {
                backing.read_exact_at(bounce.bytes(), offset)?;
                // SAFETY: mapped and without references, by the contract of `submit`.
                unsafe { bounce.give(buffers) }?;
            }
            Access::Write => {
                // SAFETY: as above.
                unsafe { bounce.take(buffers) }?;
                backing.write_all_at(bounce.bytes(), offset)?;
            }
        }
        spare.keep(bounce);
    }
    Ok(())
}

/// Takes the disk's own way, through memory of ours.
fn copy_bytes(disk: &dyn Disk, offset: u64, len: u64, pieces: &[Segment], access: Access) -> io::Result<()> {
    let mut scratch = Scratch::new(len.min(PIECE) as usize);
    let mut done = 0;
    while done < len {
        let now = (len - done).min(PIECE);
        let bytes = &mut scratch.bytes()[..now as usize];
        match access {
            Access::Read => {
                disk.read_at(bytes, offset + done)?;
                // SAFETY: mapped and without references, by the contract of `submit`.
                unsafe { scatter(bytes, pieces, done) };
            }
            Access::Write => {
                // SAFETY: as above.
                unsafe { gather(pieces, done, bytes) };
                disk.write_at(bytes, offset + done)?;
            }
        }
        done += now;
    }
    Ok(())
}

/// Nothing panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
