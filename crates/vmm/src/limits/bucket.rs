//! One token bucket, kept as a point in time: "all that was charged is paid at `paid_at`".
//!
//! A bucket whose `paid_at` lies ahead is in debt, and what it charges for must wait until then. One whose
//! `paid_at` lies behind has saved as much as the rate brings in the time between. A request that finds no debt
//! passes, whatever its size, and is charged in full: so a request larger than the burst passes too, and the
//! rate in the long run is exact. (Known as the generic cell rate algorithm, ITU-T I.371.)

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use super::Rate;

const NANOS: u128 = 1_000_000_000;
/// A worker that wakes up late may catch up on so much. Of a measurement over 10 s it is half a percent.
const SLACK: i64 = 50_000_000;
/// No debt is longer, and no sum of times overflows: four years.
const LONGEST: i64 = 1 << 57;

/// Times are nanoseconds from an epoch that the caller chooses.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// 0: unlimited.
    per_second: AtomicU64,
    /// How far `paid_at` may lie behind.
    savings: AtomicI64,
    paid_at: AtomicI64,
}

impl Bucket {
    /// Starts anew with a full burst. A request that passes meanwhile is charged to either rate.
    pub(super) fn set(&self, rate: Option<Rate>, now: i64) {
        let per_second = rate.map_or(0, |rate| rate.per_second.get());
        let burst = rate.map_or(0, |rate| price(rate.burst, per_second));
        self.per_second.store(per_second, Ordering::Relaxed);
        self.savings.store(burst.saturating_add(SLACK), Ordering::Relaxed);
        self.paid_at.store(now.saturating_sub(burst), Ordering::Relaxed);
    }

    pub(super) fn is_unlimited(&self) -> bool {
        self.per_second.load(Ordering::Relaxed) == 0
    }

    /// How long it takes until the debt is paid.
    pub(super) fn debt(&self, now: i64) -> Duration {
        if self.is_unlimited() {
            return Duration::ZERO;
        }
        let debt = self.paid_at.load(Ordering::Relaxed).saturating_sub(now);
        Duration::from_nanos(u64::try_from(debt).unwrap_or(0))
    }

    pub(super) fn charge(&self, tokens: u64, now: i64) {
        let per_second = self.per_second.load(Ordering::Relaxed);
        if per_second == 0 {
            return;
        }
        let price = price(tokens, per_second);
        let oldest = now.saturating_sub(self.savings.load(Ordering::Relaxed));
        let charge = |paid_at: i64| Some(paid_at.max(oldest).saturating_add(price));
        // It always succeeds: the closure never declines.
        let _ = self
            .paid_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, charge);
    }
}

/// The time in which the rate brings `tokens`, rounded up: the rate is never exceeded.
fn price(tokens: u64, per_second: u64) -> i64 {
    let nanos = (u128::from(tokens) * NANOS).div_ceil(u128::from(per_second.max(1)));
    i64::try_from(nanos).unwrap_or(LONGEST).min(LONGEST)
}
