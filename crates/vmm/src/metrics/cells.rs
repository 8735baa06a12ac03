//! The cells that are counted in: one writer, any number of readers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number that one thread adds to and any thread reads.
#[derive(Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    /// Load and store, not a locked add: a second writer at the same time would lose counts, nothing worse.
    pub(super) fn add(&self, n: u64) {
        let sum = self.0.load(Ordering::Relaxed).wrapping_add(n);
        self.0.store(sum, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Bucket `n` holds what took less than `2^(n+1)` ns and did not fit in the one before it. The last one, from nine
/// minutes on, is open.
const BUCKETS: usize = 40;

/// How long things took, in buckets whose bounds are powers of two of nanoseconds.
pub(super) struct Histogram {
    buckets: [Counter; BUCKETS],
    sum_ns: Counter,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: std::array::from_fn(|_| Counter::default()),
            sum_ns: Counter::default(),
        }
    }
}

impl Histogram {
    pub(super) fn add(&self, took: Duration) {
        let ns = nanoseconds(took);
        let bucket = (ns | 1).ilog2() as usize;
        if let Some(counter) = self.buckets.get(bucket.min(BUCKETS - 1)) {
            counter.add(1);
        }
        self.sum_ns.add(ns);
    }

    pub(super) fn sum_ns(&self) -> u64 {
        self.sum_ns.get()
    }

    /// Each bucket's exclusive upper bound in nanoseconds, with its count.
    pub(super) fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        (1..)
            .zip(&self.buckets)
            .map(|(exponent, counter)| (1 << exponent, counter.get()))
    }
}

pub(super) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
