//! Rate limits of a device: operations and bytes per second, each with a burst.
//!
//! A [`Limiter`] is shared by the workers of a device and the control thread, and has no lock on the data path:
//! a worker asks it with [`Limiter::admit`] and is told the moment at which to ask again. [`Throttle`] is a
//! worker's side of it: it turns that moment into a timer that the worker's epoll waits for, so that nothing
//! ever polls. [`Limiter::set`] changes the limits at run time and wakes whoever waits for the old ones.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

mod bucket;
#[cfg(test)]
mod tests;
mod throttle;

use bucket::Bucket;
pub use throttle::Throttle;
use throttle::Timer;

/// So much a second, and what may pass at once after a rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Operations, or bytes.
    pub per_second: NonZeroU64,
    /// Operations, or bytes, that pass beyond the rate once; they are earned again while less than the rate
    /// is used.
    #[serde(default)]
    pub burst: u64,
}

/// What a device may do; what is absent is unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operations: Option<Rate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Rate>,
}

/// Two buckets that must both be out of debt for a request to pass.
#[derive(Debug)]
pub struct Limiter {
    /// As it was set. The control thread's.
    limit: Mutex<RateLimit>,
    operations: Bucket,
    bytes: Bucket,
    /// The buckets' zero of time.
    epoch: Instant,
    /// Counts the calls of [`Self::set`].
    generation: AtomicU64,
    throttled_nanos: AtomicU64,
    /// Of the workers, to wake them. The control thread's, and touched by workers only when they begin.
    timers: Mutex<Vec<Weak<Timer>>>,
}

impl Limiter {
    #[must_use]
    pub fn new(limit: &RateLimit) -> Arc<Self> {
        let limiter = Self {
            limit: Mutex::new(*limit),
            operations: Bucket::default(),
            bytes: Bucket::default(),
            epoch: Instant::now(),
            generation: AtomicU64::new(0),
            throttled_nanos: AtomicU64::new(0),
            timers: Mutex::default(),
        };
        limiter.operations.set(limit.operations, 0);
        limiter.bytes.set(limit.bytes, 0);
        Arc::new(limiter)
    }

    /// Sets new limits from now on, forgetting debts to the old ones.
    pub fn set(&self, limit: &RateLimit) {
        *self.limit.lock().unwrap_or_else(PoisonError::into_inner) = *limit;
        let now = self.nanos(Instant::now());
        self.operations.set(limit.operations, now);
        self.bytes.set(limit.bytes, now);
        self.generation.fetch_add(1, Ordering::SeqCst);
        let mut timers = self.timers.lock().unwrap_or_else(PoisonError::into_inner);
        timers.retain(|timer| match timer.upgrade() {
            Some(timer) => {
                timer.fire();
                true
            }
            None => false,
        });
    }

    #[must_use]
    pub fn limit(&self) -> RateLimit {
        *self.limit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a request pass, and charges it, if neither bucket is in debt.
    ///
    /// # Errors
    /// The first moment at which it may pass. Nothing was charged.
    pub fn admit(&self, operations: u64, bytes: u64, now: Instant) -> Result<(), Instant> {
        let nanos = self.nanos(now);
        let debt = self.operations.debt(nanos).max(self.bytes.debt(nanos));
        if debt > Duration::ZERO {
            return Err(now + debt);
        }
        // Another worker may have passed since the look: both are charged, so the rate holds all the same.
        self.operations.charge(operations, nanos);
        self.bytes.charge(bytes, nanos);
        Ok(())
    }

    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        self.operations.is_unlimited() && self.bytes.is_unlimited()
    }

    /// How long requests have been held back, summed over the workers.
    #[must_use]
    pub fn throttled(&self) -> Duration {
        Duration::from_nanos(self.throttled_nanos.load(Ordering::Relaxed))
    }

    fn nanos(&self, now: Instant) -> i64 {
        i64::try_from(now.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(i64::MAX)
    }
}
