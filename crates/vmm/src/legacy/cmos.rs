//! The MC146818 real-time clock at ports 0x70 and 0x71, with its battery-backed RAM ("CMOS").
//!
//! The clock shows UTC. Its time is the host's plus what the guest has set it to; alarms and its interrupts do not
//! exist, so their enable bits read as zero. Motorola, "MC146818 real-time clock plus RAM".

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::memory::{HIGH_RAM_START, Layout, MIB};
use crate::snapshot::StateError;

pub const INDEX_PORT: u16 = 0x70;
pub const DATA_PORT: u16 = 0x71;

/// Bytes, clock registers included.
const SIZE: usize = 128;
/// The index register's top bit masks NMIs on a PC; it only has to read back.
const INDEX_MASK: u8 = 0x7f;

const SECONDS: u8 = 0x00;
const MINUTES: u8 = 0x02;
const HOURS: u8 = 0x04;
const DAY_OF_WEEK: u8 = 0x06;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const REGISTER_A: u8 = 0x0a;
const REGISTER_B: u8 = 0x0b;
const REGISTER_C: u8 = 0x0c;
const REGISTER_D: u8 = 0x0d;
/// Where PCs keep the century.
const CENTURY: u8 = 0x32;
/// RAM above 16 MiB and below 4 GiB, in units of 64 KiB, 16 bits.
const LOW_MEMORY: usize = 0x34;
/// RAM above 4 GiB, in units of 64 KiB, 24 bits.
const HIGH_MEMORY: usize = 0x5b;

/// A: time base of 32,768 Hz, no update in progress.
const TIME_BASE: u8 = 0x26;
/// B: the clock is stopped while the guest sets it.
const SET: u8 = 1 << 7;
/// B: numbers are binary; otherwise BCD.
const BINARY: u8 = 1 << 2;
/// B: hours from 0 to 23, always.
const HOURS_24: u8 = 1 << 1;
/// D: RAM and time are valid.
const VALID: u8 = 1 << 7;

const UNIT: u64 = 64 << 10;
const DAY_SECONDS: i64 = 86_400;

/// The clock and its RAM; whoever owns it adds the lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cmos {
    index: u8,
    ram: Vec<u8>,
    /// SET and BINARY of register B.
    control: u8,
    /// Seconds that the guest's clock is ahead of the host's.
    ahead: i64,
    /// The time at which the clock stands, while SET is on.
    stopped: Option<Time>,
}

impl Cmos {
    /// The clock after power-on, with the memory sizes that PC firmware reads from its RAM.
    #[must_use]
    pub fn new(layout: &Layout) -> Self {
        let mut ram = vec![0; SIZE];
        let low = layout.low_ram_end().saturating_sub(16 * MIB) / UNIT;
        let high = layout
            .ram()
            .iter()
            .filter(|(start, _)| *start >= HIGH_RAM_START)
            .map(|(_, bytes)| bytes / UNIT)
            .sum::<u64>();
        let low = u16::try_from(low).unwrap_or(u16::MAX).to_le_bytes();
        let high = high.min(0xff_ffff).to_le_bytes();
        ram[LOW_MEMORY..LOW_MEMORY + 2].copy_from_slice(&low);
        ram[HIGH_MEMORY..HIGH_MEMORY + 3].copy_from_slice(&high[..3]);
        Self {
            index: 0,
            ram,
            control: 0,
            ahead: 0,
            stopped: None,
        }
    }

    /// # Errors
    /// It is no state that such a clock can have.
    pub fn check(&self) -> Result<(), StateError> {
        // Thousands of years either way; the arithmetic below stays far from its limits.
        const FARTHEST: u64 = 100_000 * 366 * DAY_SECONDS.unsigned_abs();
        if self.ram.len() != SIZE || self.ahead.unsigned_abs() > FARTHEST {
            return Err(StateError::Unfit("a real-time clock of another kind".into()));
        }
        Ok(())
    }

    #[must_use]
    pub fn read(&self, port: u16) -> u8 {
        if port == INDEX_PORT {
            return self.index;
        }
        match self.index & INDEX_MASK {
            REGISTER_A => TIME_BASE,
            REGISTER_B => self.control | HOURS_24,
            REGISTER_C => 0,
            REGISTER_D => VALID,
            register => match self.time().field(register) {
                Some(number) => self.encode(number),
                None => self.ram.get(usize::from(register)).copied().unwrap_or(0xff),
            },
        }
    }

    pub fn write(&mut self, port: u16, value: u8) {
        if port == INDEX_PORT {
            self.index = value;
            return;
        }
        let register = self.index & INDEX_MASK;
        match register {
            REGISTER_A | REGISTER_C | REGISTER_D => {}
            REGISTER_B => self.control(value),
            register => {
                let mut time = self.time();
                let number = self.decode(value);
                if let Some(field) = time.field_mut(register) {
                    *field = number;
                    self.set(time);
                } else if let Some(byte) = self.ram.get_mut(usize::from(register)) {
                    *byte = value;
                }
            }
        }
    }

    fn control(&mut self, value: u8) {
        let time = self.time();
        self.control = value & (SET | BINARY);
        match (value & SET != 0, self.stopped) {
            (true, None) => self.stopped = Some(time),
            (false, Some(time)) => {
                self.stopped = None;
                self.set(time);
            }
            _ => {}
        }
    }

    fn time(&self) -> Time {
        self.stopped
            .unwrap_or_else(|| Time::of(host_seconds() + self.ahead))
    }

    fn set(&mut self, time: Time) {
        match &mut self.stopped {
            Some(stopped) => *stopped = time,
            None => self.ahead = time.seconds() - host_seconds(),
        }
    }

    fn encode(&self, number: u8) -> u8 {
        if self.control & BINARY != 0 {
            number
        } else {
            ((number / 10 % 10) << 4) | (number % 10)
        }
    }

    fn decode(&self, value: u8) -> u8 {
        if self.control & BINARY != 0 {
            value
        } else {
            (value >> 4).saturating_mul(10).saturating_add(value & 0xf)
        }
    }
}

/// The host's clock: seconds since 1970, UTC.
fn host_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(0)
}

/// What the time registers show, as plain numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Time {
    second: u8,
    minute: u8,
    hour: u8,
    /// 1 is Sunday.
    weekday: u8,
    day: u8,
    month: u8,
    /// In the century.
    year: u8,
    century: u8,
}

impl Time {
    /// `seconds` since 1970. Civil dates by counting eras of 400 years, which begin in March.
    fn of(seconds: i64) -> Self {
        const ERA_DAYS: i64 = 146_097;
        let days = seconds.div_euclid(DAY_SECONDS);
        let in_day = seconds.rem_euclid(DAY_SECONDS);
        let since_march_0 = days + 719_468;
        let era = since_march_0.div_euclid(ERA_DAYS);
        let day_of_era = since_march_0.rem_euclid(ERA_DAYS);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let month = if march_month < 10 {
            march_month + 3
        } else {
            march_month - 9
        };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        Self {
            second: (in_day % 60) as u8,
            minute: (in_day / 60 % 60) as u8,
            hour: (in_day / 3600) as u8,
            weekday: (days + 4).rem_euclid(7) as u8 + 1,
            day: (day_of_year - (153 * march_month + 2) / 5 + 1) as u8,
            month: month as u8,
            year: year.rem_euclid(100) as u8,
            century: (year.div_euclid(100)).rem_euclid(100) as u8,
        }
    }

    /// Seconds since 1970. Fields beyond their range count on: a 31st of February is a day in March.
    fn seconds(&self) -> i64 {
        let (month, day) = (i64::from(self.month).clamp(1, 12), i64::from(self.day));
        let year = i64::from(self.century) * 100 + i64::from(self.year) - i64::from(month <= 2);
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let march_month = (month + 9) % 12;
        let day_of_year = (153 * march_month + 2) / 5 + day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = era * 146_097 + day_of_era - 719_468;
        days * DAY_SECONDS
            + i64::from(self.hour) * 3600
            + i64::from(self.minute) * 60
            + i64::from(self.second)
    }

    fn field(mut self, register: u8) -> Option<u8> {
        self.field_mut(register).copied()
    }

    fn field_mut(&mut self, register: u8) -> Option<&mut u8> {
        match register {
            SECONDS => Some(&mut self.second),
            MINUTES => Some(&mut self.minute),
            HOURS => Some(&mut self.hour),
            DAY_OF_WEEK => Some(&mut self.weekday),
            DAY => Some(&mut self.day),
            MONTH => Some(&mut self.month),
            YEAR => Some(&mut self.year),
            CENTURY => Some(&mut self.century),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
