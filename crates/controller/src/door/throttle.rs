//! How often an account may call: a token bucket for each account and action, with EC2's sizes.
//! <https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html>

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use hearth_api::{ApiError, ErrorCode};

/// Calls at once, and calls a second from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bucket {
    size: u32,
    refill: u32,
}

/// Actions that only tell.
const READING: Bucket = Bucket {
    size: 100,
    refill: 20,
};
const CHANGING: Bucket = Bucket { size: 50, refill: 5 };
const LAUNCHING: Bucket = Bucket { size: 5, refill: 2 };

fn bucket(action: &str) -> Bucket {
    match action {
        "RunInstances" | "StartInstances" => LAUNCHING,
        _ if is_reading(action) => READING,
        _ => CHANGING,
    }
}

/// Whether an action changes nothing.
pub(super) fn is_reading(action: &str) -> bool {
    ["Describe", "Get", "List", "Watch"]
        .iter()
        .any(|verb| action.starts_with(verb))
}

#[derive(Debug)]
pub(super) struct Throttle {
    /// Of EC2's sizes and rates; 0: no limit.
    percent: u32,
    clock: DefaultClock,
    /// By account and action: as many as there are of both.
    buckets: Mutex<HashMap<(String, String), Arc<DefaultDirectRateLimiter>>>,
}

impl Throttle {
    pub(super) fn new(percent: u32) -> Self {
        Self {
            percent,
            clock: DefaultClock::default(),
            buckets: Mutex::default(),
        }
    }

    /// Takes a token for a call of an action that there is.
    ///
    /// # Errors
    /// `RequestLimitExceeded`, with the time to wait.
    pub(super) fn admit(&self, account_id: &str, action: &str) -> Result<(), ApiError> {
        let bucket = bucket(action);
        let Some((quota, size)) = self.quota(bucket) else {
            return Ok(());
        };
        let limiter = {
            let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
            let key = (account_id.to_owned(), action.to_owned());
            Arc::clone(
                buckets
                    .entry(key)
                    .or_insert_with(|| Arc::new(RateLimiter::direct(quota))),
            )
        };
        limiter.check().map_err(|until| {
            let wait = until.wait_time_from(self.clock.now());
            let message = format!(
                "Request limit exceeded. An account may call {action} {size} times at once, and {:.0} times a second from \
                 then on: try again in {:.1} seconds. (hearthd --request-rate-percent)",
                f64::from(bucket.refill) * f64::from(self.percent) / 100.0,
                wait.as_secs_f64().max(0.1)
            );
            ApiError::new(ErrorCode::RequestLimitExceeded, message)
        })
    }

    /// `None`: no limit.
    fn quota(&self, bucket: Bucket) -> Option<(Quota, u32)> {
        let scaled = |amount: u32| u64::from(amount) * u64::from(self.percent);
        let size = u32::try_from(scaled(bucket.size).div_ceil(100)).unwrap_or(u32::MAX);
        let period =
            Duration::from_secs(100).checked_div(u32::try_from(scaled(bucket.refill)).unwrap_or(u32::MAX))?;
        let quota = Quota::with_period(period)?.allow_burst(NonZeroU32::new(size)?);
        Some((quota, size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(throttle: &Throttle, account: &str, action: &str) -> usize {
        (0..1000)
            .take_while(|_| throttle.admit(account, action).is_ok())
            .count()
    }

    #[test]
    fn buckets_are_an_accounts_and_an_actions_own() {
        let throttle = Throttle::new(100);
        // A token may come back meanwhile.
        let about = |size: usize| size..=size + 2;
        assert!(about(5).contains(&admitted(&throttle, "1", "RunInstances")));
        assert!(about(5).contains(&admitted(&throttle, "2", "RunInstances")));
        assert!(about(50).contains(&admitted(&throttle, "1", "StopInstances")));
        assert!(about(100).contains(&admitted(&throttle, "1", "DescribeInstances")));
        let refused = throttle.admit("1", "RunInstances").unwrap_err();
        assert_eq!(refused.code, ErrorCode::RequestLimitExceeded);
        assert!(
            refused
                .message
                .contains("RunInstances 5 times at once, and 2 times a second"),
            "{refused}"
        );
        assert!(throttle.admit("1", "TerminateInstances").is_ok());
    }

    #[test]
    fn buckets_refill_and_scale() {
        let throttle = Throttle::new(1000);
        assert!((50..=60).contains(&admitted(&throttle, "1", "RunInstances")));
        std::thread::sleep(Duration::from_millis(500));
        assert!((8..=20).contains(&admitted(&throttle, "1", "RunInstances")));
        assert_eq!(admitted(&Throttle::new(0), "1", "RunInstances"), 1000);
    }
}
