//! Worker threads: one per virtqueue, asleep until the doorbell rings, the backend has something, or the
//! device stops them.

use std::any::Any;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::QueueMemory;
use super::chain::{Chain, Malformed};
use super::interrupt::ConfigInterrupt;
use super::queue::{QueueError, Virtqueue};
use crate::jail::{self, Role};

/// How a worker learns that it shall end.
pub struct Stop {
    requested: AtomicBool,
    event: EventFd,
}

impl Stop {
    /// # Errors
    /// No descriptor is left.
    pub fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            requested: AtomicBool::new(false),
            event: EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?,
        }))
    }

    /// Busy workers look here between requests.
    #[must_use]
    pub fn requested(&self) -> bool {
        self.requested.load(Ordering::Acquire)
    }

    /// Makes the means to sleep until `source` is readable, or gone, or the stop is requested. The waiter must
    /// not outlive `source`'s descriptor.
    ///
    /// # Errors
    /// No descriptor is left, or `source` cannot be waited for.
    pub fn waiter(&self, source: &impl AsRawFd) -> io::Result<Waiter> {
        let waiter = self.bare_waiter()?;
        let event = EpollEvent::new(EventSet::IN, SOURCE);
        waiter
            .epoll
            .ctl(ControlOperation::Add, source.as_raw_fd(), event)?;
        Ok(waiter)
    }

    /// A waiter that wakes up for nothing but the stop, until it is told of [sources](Waiter::also_edges_of).
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn bare_waiter(&self) -> io::Result<Waiter> {
        let epoll = Epoll::new()?;
        let event = EpollEvent::new(EventSet::IN, STOP);
        epoll.ctl(ControlOperation::Add, self.event.as_raw_fd(), event)?;
        Ok(Waiter { epoll })
    }

    fn request(&self) {
        self.requested.store(true, Ordering::Release);
        if let Err(error) = self.event.write(1) {
            tracing::error!(%error, "a worker could not be woken to stop");
        }
    }
}

impl AsRawFd for Stop {
    /// Readable once the stop is requested, for those that wait for more than a [`Waiter`] can.
    fn as_raw_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}

const STOP: u64 = 0;
const SOURCE: u64 = 1;

/// Sleeps for one source.
pub struct Waiter {
    epoll: Epoll,
}

impl Waiter {
    /// Wakes up for each time that `source` becomes readable, too; the same lifetime holds for its descriptor.
    ///
    /// # Errors
    /// `source` cannot be waited for.
    pub fn also_edges_of(&self, source: &impl AsRawFd) -> io::Result<()> {
        let event = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, SOURCE);
        self.epoll.ctl(ControlOperation::Add, source.as_raw_fd(), event)
    }

    /// Sleeps until the source is readable or gone (true), or the stop is requested (false).
    #[must_use]
    pub fn wait(&self) -> bool {
        let mut events = [EpollEvent::default(); 4];
        loop {
            match self.epoll.wait(-1, &mut events) {
                Ok(count) => return events.iter().take(count).all(|event| event.data() != STOP),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::error!(%error, "a worker cannot wait and ends");
                    return false;
                }
            }
        }
    }
}

/// A running worker that will hand back a `T`: its queue. Dropping it stops it too.
pub struct Worker<T> {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<T>>,
}

impl<T: Send + 'static> Worker<T> {
    /// Starts a thread `name` (at most 15 bytes) that may do what `role` may, and ends soon after `stop` is
    /// requested.
    ///
    /// # Errors
    /// The process may not have another thread.
    pub fn spawn(
        role: Role,
        name: &str,
        stop: Arc<Stop>,
        run: impl FnOnce(&Stop) -> T + Send + 'static,
    ) -> io::Result<Self> {
        let seen = Arc::clone(&stop);
        let thread = jail::spawn(role, Builder::new().name(name.to_owned()), move || {
            catch_unwind(AssertUnwindSafe(|| run(&seen))).unwrap_or_else(|payload| on_panic(payload.as_ref()))
        })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Stops the worker, and waits until the request it is at has ended.
    #[must_use]
    pub fn stop(mut self) -> Option<T> {
        self.end()
    }
}

impl<T> Worker<T> {
    fn end(&mut self) -> Option<T> {
        let thread = self.thread.take()?;
        self.stop.request();
        // A panic has ended the process before it could get here.
        thread.join().ok()
    }
}

impl<T> Drop for Worker<T> {
    fn drop(&mut self) {
        self.end();
    }
}

/// Ends the process: a worker that panicked leaves its guest waiting for ever, and what it held is not to be
/// trusted. The agent sees the exit and says so.
pub fn on_panic(payload: &(dyn Any + Send)) -> ! {
    let message = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    let thread = std::thread::current();
    tracing::error!(thread = thread.name(), message, "a device worker panicked");
    std::process::abort()
}

/// What a device does with each chain of a queue.
pub trait Handler {
    /// A longer chain is broken.
    const MAX_DESCRIPTORS: usize;

    /// Whether a rate limit lets the request pass now.
    fn admits(&mut self, chain: &Chain) -> bool {
        let _ = chain;
        true
    }

    /// Sleeps until a request that was not admitted is; false: the worker ends.
    fn wait_until_admitted(&mut self, chain: &Chain) -> bool {
        let _ = chain;
        true
    }

    /// Serves one request, and says how many bytes it wrote from the start of the writable buffers.
    ///
    /// # Errors
    /// The chain holds no request that could be answered: the device needs a reset.
    fn handle(&mut self, chain: &Chain, memory: &QueueMemory) -> Result<u32, Malformed>;
}

/// Serves a queue until it is stopped or broken, and then says so to the driver.
pub fn serve<H: Handler>(
    queue: &mut Virtqueue,
    stop: &Stop,
    doorbell: &Waiter,
    config_interrupt: &ConfigInterrupt,
    handler: &mut H,
) {
    if let Err(error) = run(queue, stop, doorbell, handler) {
        config_interrupt.needs_reset(&error);
    }
}

fn run<H: Handler>(
    queue: &mut Virtqueue,
    stop: &Stop,
    doorbell: &Waiter,
    handler: &mut H,
) -> Result<(), QueueError> {
    let mut chain = Chain::default();
    loop {
        queue.disable_doorbell()?;
        loop {
            match serve_batch(queue, stop, handler, &mut chain)? {
                Batch::Full => {}
                Batch::Empty => break,
                Batch::Last => return Ok(()),
            }
        }
        if !queue.enable_doorbell()? {
            if !doorbell.wait() {
                return Ok(());
            }
            queue.silence_doorbell();
        }
    }
}

pub(super) enum Batch {
    /// There may be more chains.
    Full,
    Empty,
    /// The worker ends.
    Last,
}

/// Serves at most a ring's worth of chains, so that a driver that never stops adding gets its interrupts, and
/// interrupts once.
pub(super) fn serve_batch<H: Handler>(
    queue: &mut Virtqueue,
    stop: &Stop,
    handler: &mut H,
    chain: &mut Chain,
) -> Result<Batch, QueueError> {
    let served = serve_chains(queue, stop, handler, chain);
    // Also when a chain was broken: those before it are done.
    queue.notify()?;
    served
}

fn serve_chains<H: Handler>(
    queue: &mut Virtqueue,
    stop: &Stop,
    handler: &mut H,
    chain: &mut Chain,
) -> Result<Batch, QueueError> {
    for _ in 0..queue.size() {
        if stop.requested() {
            return Ok(Batch::Last);
        }
        if !queue.pop(chain, H::MAX_DESCRIPTORS)? {
            return Ok(Batch::Empty);
        }
        if !handler.admits(chain) {
            // The requests before it do not wait with this one.
            queue.notify()?;
            if !handler.wait_until_admitted(chain) {
                queue.undo_pop();
                return Ok(Batch::Last);
            }
        }
        match handler.handle(chain, queue.memory()) {
            Ok(written) => queue.complete(chain, written)?,
            Err(source) => return Err(queue.malformed(source)),
        }
    }
    Ok(Batch::Full)
}
