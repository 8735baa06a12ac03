use proptest::prelude::*;

use super::*;
use crate::memory::GIB;

fn clock() -> Cmos {
    Cmos::new(&Layout::new(512 * MIB))
}

fn get(cmos: &mut Cmos, register: u8) -> u8 {
    cmos.write(INDEX_PORT, register);
    cmos.read(DATA_PORT)
}

fn put(cmos: &mut Cmos, register: u8, value: u8) {
    cmos.write(INDEX_PORT, register);
    cmos.write(DATA_PORT, value);
}

#[test]
fn dates_are_civil_dates() {
    let time = Time::of(1_709_210_096);
    let date = (time.century, time.year, time.month, time.day, time.weekday);
    // Thursday, 29 February 2024, 12:34:56.
    assert_eq!(date, (20, 24, 2, 29, 5));
    assert_eq!((time.hour, time.minute, time.second), (12, 34, 56));
    let time = Time::of(0);
    assert_eq!((time.century, time.year, time.month, time.day), (19, 70, 1, 1));
}

#[test]
fn the_clock_shows_the_hosts_time_in_bcd_and_binary() {
    let mut cmos = clock();
    let decimal = get(&mut cmos, YEAR);
    put(&mut cmos, REGISTER_B, BINARY);
    let binary = get(&mut cmos, YEAR);
    assert_eq!(decimal, ((binary / 10) << 4) | (binary % 10));
    let now = Time::of(host_seconds());
    assert_eq!((get(&mut cmos, CENTURY), binary), (now.century, now.year));
    assert_eq!(get(&mut cmos, REGISTER_B), BINARY | HOURS_24);
    assert_eq!(
        (get(&mut cmos, REGISTER_A), get(&mut cmos, REGISTER_D)),
        (TIME_BASE, VALID)
    );
}

#[test]
fn a_guest_sets_its_clock_and_a_snapshot_keeps_it() {
    let mut cmos = clock();
    put(&mut cmos, REGISTER_B, SET | BINARY);
    let date = [
        (CENTURY, 19),
        (YEAR, 99),
        (MONTH, 12),
        (DAY, 31),
        (HOURS, 23),
        (MINUTES, 1),
        (SECONDS, 2),
    ];
    for (register, value) in date {
        put(&mut cmos, register, value);
    }
    // While it is set, it stands.
    assert_eq!(cmos.time(), cmos.stopped.unwrap());
    put(&mut cmos, REGISTER_B, BINARY);
    let saved = crate::snapshot::Saved::of("clock", &cmos).unwrap();
    let mut restored: Cmos = saved.read("clock").unwrap();
    restored.check().unwrap();
    assert_eq!(restored, cmos);
    for (register, value) in &date[..6] {
        assert_eq!(get(&mut restored, *register), *value, "register {register:#x}");
    }
    assert!(restored.ahead < 0);
}

#[test]
fn a_clock_that_is_too_far_off_is_refused() {
    for ahead in [i64::MIN, -i64::MAX, 1 << 42, i64::MAX] {
        let clock = Cmos { ahead, ..clock() };
        assert!(clock.check().is_err(), "{ahead}");
    }
}

#[test]
fn memory_sizes_are_in_64_kib() {
    let mut cmos = Cmos::new(&Layout::new(5 * GIB));
    let number = |cmos: &mut Cmos, first: u8, bytes: u8| {
        (0..bytes)
            .rev()
            .fold(0_u64, |sum, at| (sum << 8) | u64::from(get(cmos, first + at)))
    };
    assert_eq!(number(&mut cmos, 0x34, 2) * UNIT, 3 * GIB - 16 * MIB);
    assert_eq!(number(&mut cmos, 0x5b, 3) * UNIT, 2 * GIB);
    put(&mut cmos, 0x40, 7);
    assert_eq!(get(&mut cmos, 0x40), 7);
    assert_eq!(number(&mut clock(), 0x5b, 3), 0);
}

proptest! {
    #[test]
    fn a_time_is_the_seconds_that_it_came_from(seconds in 0..253_402_300_800_i64) {
        prop_assert_eq!(Time::of(seconds).seconds(), seconds);
    }

    /// Whatever a guest writes: no panic, and a state that a snapshot takes.
    #[test]
    fn any_writes_leave_a_state_that_can_be_saved(writes in prop::collection::vec((0_u8..2, any::<u8>()), 0..64)) {
        let mut cmos = clock();
        for (port, value) in writes {
            cmos.write(INDEX_PORT + u16::from(port), value);
            let _ = cmos.read(DATA_PORT);
        }
        prop_assert!(cmos.check().is_ok());
    }
}
