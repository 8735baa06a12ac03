use std::sync::mpsc::channel;
use std::thread;

use proptest::prelude::*;
use vmm_sys_util::eventfd::EventFd;

use super::*;
use crate::virtio::worker::Stop;

const SECOND: Duration = Duration::from_secs(1);

fn rate(per_second: u64, burst: u64) -> Option<Rate> {
    NonZeroU64::new(per_second).map(|per_second| Rate { per_second, burst })
}

fn operations(per_second: u64, burst: u64) -> RateLimit {
    RateLimit {
        operations: rate(per_second, burst),
        bytes: None,
    }
}

fn bytes(per_second: u64, burst: u64) -> RateLimit {
    RateLimit {
        operations: None,
        bytes: rate(per_second, burst),
    }
}

/// A worker that never lacks requests: what passes before `end` with a clock that `delay` disturbs.
fn simulate(limiter: &Limiter, len: u64, from: Instant, end: Instant, mut delay: impl FnMut() -> u64) -> u64 {
    let (mut now, mut passed) = (from, 0);
    while now < end {
        match limiter.admit(1, len, now) {
            Ok(()) => passed += 1,
            Err(again) => {
                assert!(again > now, "the worker would spin");
                now = again + Duration::from_nanos(delay());
            }
        }
    }
    passed
}

/// Numbers that look random: a worker's delays.
fn delays(seed: u64, longest: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % longest.max(1)
    }
}

fn assert_within_2_percent(measured: u64, expected: f64) {
    let ratio = measured as f64 / expected;
    assert!(
        (0.98..=1.02).contains(&ratio),
        "{measured} passed, {expected} should"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn operations_are_accurate_over_10_seconds_however_late_the_worker_wakes(
        // Each order of magnitude gets its share of the cases.
        exponent in 50f64.ln()..100_000f64.ln(),
        burst in 0u64..10_000,
        seed in any::<u64>(),
        longest_delay in 0u64..20_000_000,
    ) {
        let per_second = exponent.exp() as u64;
        let limiter = Limiter::new(&operations(per_second, burst));
        let start = limiter.epoch;
        let passed = simulate(&limiter, 4096, start, start + 10 * SECOND, delays(seed, longest_delay));
        assert_within_2_percent(passed.saturating_sub(burst), per_second as f64 * 10.0);
    }

    #[test]
    fn bytes_are_accurate_over_10_seconds(
        kib_per_second in 1_000u64..400_000,
        len in 4096u64..100_000,
        seed in any::<u64>(),
    ) {
        let per_second = kib_per_second * 1024;
        // As seldom as 20 a second at most: the last request's debt is part of the count.
        let len = len.min(per_second / 20);
        let limiter = Limiter::new(&bytes(per_second, 0));
        let start = limiter.epoch;
        let passed = simulate(&limiter, len, start, start + 10 * SECOND, delays(seed, 300_000));
        assert_within_2_percent(passed * len, per_second as f64 * 10.0);
    }

    /// No rate, size or time makes it panic, overflow or let time run backwards.
    #[test]
    fn extremes_are_harmless(
        per_second in 1..=u64::MAX,
        burst in any::<u64>(),
        requests in prop::collection::vec((any::<u64>(), any::<u64>(), 0..1u64 << 50), 1..50),
    ) {
        let limit = RateLimit { operations: rate(per_second, burst), bytes: rate(burst.max(1), per_second) };
        let limiter = Limiter::new(&limit);
        let mut now = limiter.epoch;
        for (operations, bytes, nanos) in requests {
            now += Duration::from_nanos(nanos);
            if let Err(again) = limiter.admit(operations, bytes, now) {
                prop_assert!(again > now);
            }
        }
    }
}

#[test]
fn the_ends_of_the_promised_range_are_exact_with_a_punctual_worker() {
    for per_second in [50, 100_000] {
        let limiter = Limiter::new(&operations(per_second, 0));
        let start = limiter.epoch;
        let passed = simulate(&limiter, 0, start, start + 10 * SECOND, || 0);
        assert_eq!(passed, per_second * 10);
    }
}

#[test]
fn a_burst_passes_at_once_and_is_earned_again_by_rest() {
    let limiter = Limiter::new(&operations(100, 200));
    let start = limiter.epoch;
    let at_once = |now| (0..1000).take_while(|_| limiter.admit(1, 0, now).is_ok()).count();
    assert_eq!(at_once(start), 201);
    assert_eq!(at_once(start + SECOND), 100);
    // Rest brings the burst and a worker's lateness, however long it is.
    let rested = at_once(start + 1000 * SECOND);
    assert!((201..=206).contains(&rested), "{rested}");
}

#[test]
fn a_request_larger_than_the_burst_passes_and_is_paid_for() {
    let limiter = Limiter::new(&bytes(1000, 0));
    let start = limiter.epoch;
    assert_eq!(limiter.admit(1, 5000, start), Ok(()));
    assert_eq!(
        limiter.admit(1, 1, start + Duration::from_millis(1)),
        Err(start + 5 * SECOND)
    );
    assert_eq!(limiter.admit(1, 1, start + 5 * SECOND), Ok(()));
}

#[test]
fn the_tighter_of_the_two_limits_holds_and_a_refusal_charges_neither() {
    let limiter = Limiter::new(&RateLimit {
        operations: rate(10, 0),
        bytes: rate(1000, 0),
    });
    let start = limiter.epoch;
    assert_eq!(limiter.admit(1, 1, start), Ok(()));
    let tenth = start + SECOND / 10;
    assert_eq!(limiter.admit(1, 2000, start), Err(tenth));
    assert_eq!(limiter.admit(1, 2000, tenth), Ok(()));
    // Less the slack that the pause before has saved.
    let again = limiter.admit(1, 1, start + SECOND).unwrap_err();
    assert!(again > start + 2 * SECOND && again <= tenth + 2 * SECOND);
}

#[test]
fn no_limit_lets_everything_pass() {
    let limiter = Limiter::new(&RateLimit::default());
    assert!(limiter.is_unlimited());
    for _ in 0..1000 {
        assert_eq!(limiter.admit(u64::MAX, u64::MAX, limiter.epoch), Ok(()));
    }
}

#[test]
fn new_limits_forget_the_debts_to_the_old() {
    let limiter = Limiter::new(&operations(1, 0));
    assert!(limiter.admit(1_000_000, 0, Instant::now()).is_ok());
    assert!(limiter.admit(1, 0, Instant::now()).is_err());
    limiter.set(&operations(1, 0));
    assert!(limiter.admit(1, 0, Instant::now()).is_ok());
}

#[test]
fn limits_are_written_as_json() {
    let limit: RateLimit = serde_json::from_str(r#"{"operations":{"per_second":100}}"#).unwrap();
    assert_eq!(limit, operations(100, 0));
    for wrong in [
        r#"{"operations":{"per_second":0}}"#,
        r#"{"operations":{"per_second":-1}}"#,
        r#"{"operations":{}}"#,
        r#"{"megabytes":{"per_second":1}}"#,
    ] {
        assert!(serde_json::from_str::<RateLimit>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_worker_sleeps_until_its_turn_by_a_real_clock() {
    const REQUESTS: u32 = 1000;
    let limiter = Limiter::new(&operations(5000, 0));
    let mut throttle = Throttle::new(Arc::clone(&limiter)).unwrap();
    let waiter = Stop::new().unwrap().waiter(&throttle).unwrap();
    let (begin, mut sleeps) = (Instant::now(), 0);
    for _ in 0..REQUESTS {
        while !throttle.admit(1, 0) {
            sleeps += 1;
            assert!(waiter.wait());
        }
    }
    let elapsed = begin.elapsed();
    // All but the first wait their turn, less what a late worker may catch up on at the end.
    assert!(elapsed >= Duration::from_millis(200 - 51), "{elapsed:?}");
    assert!(
        sleeps <= REQUESTS + 10,
        "the worker woke up {sleeps} times for nothing"
    );
    assert!(limiter.throttled() <= elapsed);
    assert!(limiter.throttled() > Duration::ZERO);
}

#[test]
fn a_high_rate_is_kept_with_few_sleeps() {
    const REQUESTS: u32 = 20_000;
    let limiter = Limiter::new(&operations(100_000, 0));
    let mut throttle = Throttle::new(Arc::clone(&limiter)).unwrap();
    let waiter = Stop::new().unwrap().waiter(&throttle).unwrap();
    let (begin, mut sleeps) = (Instant::now(), 0);
    for _ in 0..REQUESTS {
        while !throttle.admit(1, 0) {
            sleeps += 1;
            assert!(waiter.wait());
        }
    }
    let elapsed = begin.elapsed();
    assert!(elapsed >= Duration::from_millis(200 - 51), "{elapsed:?}");
    // Ten requests come due in the shortest wait.
    assert!(sleeps <= REQUESTS / 9, "{sleeps} sleeps");
}

#[test]
fn a_change_wakes_a_worker_that_waits_for_the_old_limit() {
    let limiter = Limiter::new(&operations(1, 0));
    let mut throttle = Throttle::new(Arc::clone(&limiter)).unwrap();
    // An hour of debt.
    assert!(throttle.admit(3600, 0));
    let stop = Stop::new().unwrap();
    let never = EventFd::new(0).unwrap();
    let waiter = stop.waiter(&never).unwrap();
    waiter.also_edges_of(&throttle).unwrap();
    let (held, holding) = channel();
    thread::scope(|scope| {
        let limiter = &limiter;
        scope.spawn(move || {
            holding.recv().unwrap();
            limiter.set(&RateLimit::default());
        });
        assert!(!throttle.admit(1, 0));
        assert!(throttle.is_holding());
        held.send(()).unwrap();
        assert!(waiter.wait());
        assert!(throttle.admit(1, 0));
        assert!(!throttle.is_holding());
    });
}
