//! Engines: many requests to a disk in flight at once.
//!
//! A worker submits [`Request`]s, reaps what has ended, in whatever order, and sleeps in the engine, which also
//! watches the worker's other descriptors: so one system call sets requests off and waits for all there is to wait
//! for. [`Uring`] hands reads and writes to the kernel through an `io_uring`; what a disk
//! must do itself (filling an overlay's chunk, flushing, discarding) and what direct I/O does not take goes to
//! threads of a [`Pool`]. Where `io_uring` is refused, [`Pooled`] gives the threads everything. Neither opens a
//! file.
//!
//! What lies encrypted goes through memory of the engine's own: the guest never sees ciphertext, and cannot change what is
//! being encrypted. Parts of sectors of it are the disk's own to read and write.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, OnceLock};

mod bounce;
mod buffers;
mod pool;
#[cfg(test)]
mod tests;
mod uring;

pub use buffers::Segment;
pub use pool::{Pool, Pooled, Spawn};
pub use uring::Uring;

use crate::{Disk, SECTOR};

/// What a disk is asked to do with a range; a flush has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Into the buffers.
    Read,
    /// From the buffers.
    Write,
    /// Covers the writes that were reaped before it was submitted.
    Flush,
    Discard,
    WriteZeroes {
        /// Space may be given back.
        unmap: bool,
    },
}

/// One thing to do. It comes back with its [`Completion`], so that its memory can be used again.
#[derive(Debug)]
pub struct Request {
    /// The submitter's name for it.
    pub token: usize,
    pub operation: Operation,
    /// Bytes into the disk.
    pub offset: u64,
    /// Bytes; those of `buffers` together for reads and writes.
    pub len: u64,
    pub buffers: Vec<Segment>,
}

/// How a request ended.
#[derive(Debug)]
pub struct Completion {
    pub request: Request,
    pub result: io::Result<()>,
}

/// Carries requests out. Owned by one thread; dropping it waits for what is in flight.
pub trait Engine: Send {
    /// Takes a request; it may wait for [`Self::kick`] to begin. What cannot be done ends in its completion. True:
    /// it has ended already, and should be reaped before more is submitted if others are not to wait for them.
    ///
    /// # Safety
    /// Until the request was reaped or the engine dropped, its buffers stay mapped, and Rust code has no
    /// references to them. Their content may change at any time.
    unsafe fn submit(&mut self, request: Request) -> bool;

    /// Sets off what was submitted.
    ///
    /// # Errors
    /// The engine is broken: what is in flight may never end.
    fn kick(&mut self) -> io::Result<()>;

    /// Appends what has ended. Never waits.
    fn reap(&mut self, ended: &mut Vec<Completion>);

    /// Requests that were submitted and not reaped.
    fn in_flight(&self) -> usize;

    /// Whether [`Self::reap`] would find something. Only a look at memory, for those who look often.
    fn has_ended(&mut self) -> bool;

    /// From now on `source` ends [`Self::sleep`] each time that it becomes readable, and at first if it is:
    /// nobody needs to read it. It stays open as long as the engine lives.
    ///
    /// # Errors
    /// It cannot be watched.
    fn watch(&mut self, source: BorrowedFd<'_>) -> io::Result<()>;

    /// Sets off what was submitted, and sleeps until there may be something to be reaped, or something watched
    /// has become readable since the last sleep.
    ///
    /// # Errors
    /// As [`Self::kick`].
    fn sleep(&mut self) -> io::Result<()>;
}

/// Makes the best engine that the kernel allows, for a queue of `depth` requests.
///
/// # Errors
/// No descriptor is left.
pub fn start(disk: &Arc<dyn Disk>, pool: &Arc<Pool>, depth: u16) -> io::Result<Box<dyn Engine>> {
    if is_uring_allowed()
        && !disk.backings().is_empty()
        && let Ok(uring) = Uring::new(Arc::clone(disk), pool, depth)
    {
        return Ok(Box::new(uring));
    }
    Ok(Box::new(Pooled::new(pool)?))
}

/// Whether the kernel lets this process have an `io_uring` that is new enough. Asked once.
pub fn is_uring_allowed() -> bool {
    static ALLOWED: OnceLock<bool> = OnceLock::new();
    *ALLOWED.get_or_init(|| uring::probe().is_ok())
}

/// Whether the kernel moves the buffers' bytes to and from `offset` of a backing by itself.
fn fits(direct: bool, offset: u64, buffers: &[Segment]) -> bool {
    !direct || offset.is_multiple_of(SECTOR) && buffers.iter().all(Segment::is_aligned)
}
