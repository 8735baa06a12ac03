//! Looking for the next request before sleeping.
//!
//! A driver that has one request at a time offers the next one moments after it got the last one back. To be asleep
//! by then costs more than to look for that long: the driver's doorbell is a VM exit, and the wake-up a switch of
//! threads. So a worker looks for about as long as these take, and where that was in vain, it goes without looking
//! for a while, and for twice as long after each time that was in vain too.

use std::time::Duration;

/// What a doorbell and a wake-up cost, about.
pub(super) const LOOK: Duration = Duration::from_micros(10);
/// Sleeps between two looks, at most.
const MAX_SKIPPED: u32 = 256;

/// Decides whether looking pays.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// Sleeps without a look from one that was in vain to the next.
    skipped: u32,
    /// Of these, those to come.
    left: u32,
}

impl Patience {
    /// Whether to look this time, or to sleep at once.
    pub(super) fn looks(&mut self) -> bool {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                false
            }
            None => true,
        }
    }

    /// What a look has come to.
    pub(super) fn learn(&mut self, found: bool) {
        self.skipped = if found {
            0
        } else {
            (2 * self.skipped).clamp(1, MAX_SKIPPED)
        };
        self.left = self.skipped;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks among `times` opportunities, all of which come to `found`.
    fn looks(patience: &mut Patience, times: u32, found: bool) -> u32 {
        let mut looks = 0;
        for _ in 0..times {
            if patience.looks() {
                looks += 1;
                patience.learn(found);
            }
        }
        looks
    }

    #[test]
    fn it_looks_where_looking_pays() {
        assert_eq!(looks(&mut Patience::default(), 1000, true), 1000);
    }

    #[test]
    fn it_looks_ever_more_seldom_in_vain_and_never_stops() {
        let mut patience = Patience::default();
        let first = looks(&mut patience, 10_000, false);
        assert!((40..60).contains(&first), "{first}");
        let later = looks(&mut patience, 10_000, false);
        assert!((35..42).contains(&later), "{later}");
    }

    #[test]
    fn one_success_is_enough_to_look_again() {
        let mut patience = Patience::default();
        looks(&mut patience, 10_000, false);
        while !patience.looks() {}
        patience.learn(true);
        assert_eq!(looks(&mut patience, 100, true), 100);
    }
}
