//! The ACPI power management timer: 24 bits that count at 3.579545 MHz. ACPI 6.5, section 4.8.2.1.

use std::time::Instant;

/// Where the firmware's platform expects it.
pub const PORT: u16 = 0x608;
/// Its ports, for accesses of a byte.
pub const LAST_PORT: u16 = PORT + 3;

const HERTZ: u128 = 3_579_545;
const NANOSECONDS: u128 = 1_000_000_000;
const MASK: u32 = 0xff_ffff;

#[derive(Debug)]
pub struct PmTimer {
    started: Instant,
    /// What it showed then.
    first: u32,
}

impl PmTimer {
    /// A timer that goes on from `first`.
    #[must_use]
    pub fn new(first: u32) -> Self {
        Self {
            started: Instant::now(),
            first,
        }
    }

    #[must_use]
    pub fn ticks(&self) -> u32 {
        let passed = self.started.elapsed().as_nanos() * HERTZ / NANOSECONDS;
        self.first.wrapping_add(passed as u32) & MASK
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_counts_at_its_rate_and_wraps_at_24_bits() {
        let timer = PmTimer {
            started: Instant::now() - Duration::from_secs(1),
            first: 0,
        };
        let ticks = timer.ticks();
        assert!((3_579_545..5_000_000).contains(&ticks), "{ticks}");
        assert!(PmTimer::new(MASK + 5).ticks() < MASK / 2);
        let wrapped = PmTimer {
            started: Instant::now() - Duration::from_secs(5),
            first: 0,
        };
        assert!(wrapped.ticks() < 5 * 3_579_545 - MASK + 4_000_000);
    }
}
