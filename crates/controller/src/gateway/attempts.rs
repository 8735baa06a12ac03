//! How many refused enrolments an address may cause: guessing a secret of 256 bits is hopeless, but each guess costs the
//! store a read and the log a line.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::door::subscriber::subscriber;

/// Refusals of one address within [`WINDOW`].
const LIMIT: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are remembered at the same time.
const ADDRESSES: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Attempts {
    refused: Mutex<HashMap<IpAddr, Refused>>,
}

#[derive(Debug, Clone, Copy)]
struct Refused {
    since: Instant,
    count: u32,
}

impl Attempts {
    /// How long the address has to wait before it is listened to again.
    pub(super) fn wait(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = refused.get(&subscriber(address))?;
        let left = WINDOW.saturating_sub(now.duration_since(refused.since));
        (refused.count >= LIMIT && !left.is_zero()).then_some(left)
    }

    pub(super) fn refuse(&self, address: IpAddr, now: Instant) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let subscriber = subscriber(address);
        if !refused.contains_key(&subscriber) && refused.len() >= ADDRESSES {
            refused.retain(|_, refused| now.duration_since(refused.since) < WINDOW);
            // Still full: whoever has so many addresses is not stopped by counting them.
            if refused.len() >= ADDRESSES {
                refused.clear();
            }
        }
        let entry = refused
            .entry(subscriber)
            .or_insert(Refused { since: now, count: 0 });
        if now.duration_since(entry.since) >= WINDOW {
            *entry = Refused { since: now, count: 0 };
        }
        entry.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUESSER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn an_address_that_was_refused_too_often_waits_and_others_do_not() {
        let attempts = Attempts::default();
        let start = Instant::now();
        for _ in 0..LIMIT {
            assert_eq!(attempts.wait(GUESSER, start), None);
            attempts.refuse(GUESSER, start);
        }
        let later = start + Duration::from_secs(20);
        assert_eq!(attempts.wait(GUESSER, later), Some(Duration::from_secs(40)));
        assert_eq!(attempts.wait("192.0.2.2".parse().unwrap(), later), None);
        assert_eq!(attempts.wait(GUESSER, start + WINDOW), None);
        attempts.refuse(GUESSER, start + WINDOW);
        assert_eq!(
            attempts.wait(GUESSER, start + WINDOW),
            None,
            "the count began anew"
        );
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_together() {
        let attempts = Attempts::default();
        let now = Instant::now();
        for n in 0..LIMIT {
            attempts.refuse(format!("2001:db8::{n:x}").parse().unwrap(), now);
        }
        assert!(attempts.wait("2001:db8::ffff".parse().unwrap(), now).is_some());
        assert!(attempts.wait("2001:db8:0:1::1".parse().unwrap(), now).is_none());
    }

    #[test]
    fn the_memory_is_bounded() {
        let attempts = Attempts::default();
        let now = Instant::now();
        for n in 0..3 * ADDRESSES as u32 {
            attempts.refuse(IpAddr::V4(n.into()), now);
        }
        assert!(attempts.refused.lock().unwrap().len() <= ADDRESSES);
    }
}
