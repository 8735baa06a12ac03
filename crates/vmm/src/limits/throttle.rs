//! A worker's side of a limiter: asks, and sleeps until the answer is yes.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use super::Limiter;

/// No wait is shorter: a timer and a waking thread cost as much as some requests, and so many pass at once afterwards,
/// by what the bucket has saved meanwhile.
const LEAST_WAIT: Duration = Duration::from_micros(100);

/// Readable from a moment on.
#[derive(Debug)]
pub(super) struct Timer(OwnedFd);

impl Timer {
    fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Self(timerfd_create(TimerfdClockId::Monotonic, flags)?))
    }

    /// Readable as soon as may be.
    pub(super) fn fire(&self) {
        self.arm(Duration::from_nanos(1));
    }

    /// Readable in `wait`, which is not zero, and not before.
    fn arm(&self, wait: Duration) {
        let expiry = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec {
                tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: wait.subsec_nanos().into(),
            },
        };
        // It cannot fail on a timer's descriptor with a time in range.
        if let Err(error) = timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &expiry) {
            tracing::error!(%error, "a rate limit's timer could not be set");
        }
    }
}

/// Admits the requests of one worker. Its descriptor becomes readable when a request that was held back should
/// be tried again. Watch it edge-triggered ([`Waiter::also_edges_of`](crate::virtio::worker::Waiter)): nobody
/// reads it, and a change of the limits may make it readable when nothing is held back.
#[derive(Debug)]
pub struct Throttle {
    limiter: Arc<Limiter>,
    timer: Arc<Timer>,
    held: Option<Held>,
}

/// The wait of the request at hand.
#[derive(Debug)]
struct Held {
    /// When it was first held back.
    since: Instant,
    /// What the timer is set to, and the limiter's generation by which this is right.
    until: Instant,
    generation: u64,
}

impl Throttle {
    /// # Errors
    /// No descriptor is left.
    pub fn new(limiter: Arc<Limiter>) -> io::Result<Self> {
        let timer = Arc::new(Timer::new()?);
        let mut timers = limiter.timers.lock().unwrap_or_else(PoisonError::into_inner);
        // Workers come and go with each reset of the device.
        timers.retain(|timer| timer.strong_count() > 0);
        timers.push(Arc::downgrade(&timer));
        drop(timers);
        Ok(Self {
            limiter,
            timer,
            held: None,
        })
    }

    /// Lets a request pass and charges it; or returns false, with the timer set to when to ask again. Charge one
    /// operation for each request, and its bytes of data.
    pub fn admit(&mut self, operations: u64, bytes: u64) -> bool {
        if self.held.is_none() && self.limiter.is_unlimited() {
            return true;
        }
        loop {
            let generation = self.limiter.generation.load(Ordering::SeqCst);
            let now = Instant::now();
            if let Some(held) = &self.held
                && held.generation == generation
                && now < held.until
            {
                // Something else has woken the worker up.
                return false;
            }
            let Err(again) = self.limiter.admit(operations, bytes, now) else {
                self.end_wait(now);
                return true;
            };
            let wait = again.saturating_duration_since(now).max(LEAST_WAIT);
            self.held = Some(Held {
                since: self.held.as_ref().map_or(now, |held| held.since),
                until: now + wait,
                generation,
            });
            self.timer.arm(wait);
            // A change after this look fires the timer after it was set, so it is not missed.
            if self.limiter.generation.load(Ordering::SeqCst) == generation {
                return false;
            }
        }
    }

    /// Whether a request is held back.
    #[must_use]
    pub fn is_holding(&self) -> bool {
        self.held.is_some()
    }

    /// Counts the time for which a request was held back. Also for a worker that stops while it holds one.
    pub fn end_wait(&mut self, now: Instant) {
        if let Some(Held { since, .. }) = self.held.take() {
            let waited = u64::try_from(now.saturating_duration_since(since).as_nanos()).unwrap_or(u64::MAX);
            self.limiter.throttled_nanos.fetch_add(waited, Ordering::Relaxed);
        }
    }
}

impl AsRawFd for Throttle {
    fn as_raw_fd(&self) -> RawFd {
        self.timer.0.as_raw_fd()
    }
}
