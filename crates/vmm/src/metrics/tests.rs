use std::time::Duration;

use proptest::prelude::*;

use super::*;

#[test]
fn queues_of_a_device_are_added_up() {
    let registry = Registry::default();
    let device = registry.device("block", "vol0");
    let (mut first, mut second) = (device.queue(0), device.queue(1));
    first.completed(Operation::Read, 4096, Duration::from_nanos(1000));
    second.completed(Operation::Read, 512, Duration::from_nanos(1023));
    second.failed(Operation::Read, Duration::from_nanos(1024));
    second.throttled(Operation::Write, Duration::from_micros(3));
    let report = registry.report();
    let operations = &report.devices[0].operations;
    assert_eq!(
        operations[&Operation::Read],
        OperationReport {
            operations: 3,
            bytes: 4608,
            errors: 1,
            throttled: 0,
            throttled_ns: 0,
            latency: LatencyReport {
                sum_ns: 3047,
                buckets: vec![(1024, 2), (2048, 1)],
            },
        }
    );
    assert_eq!(operations[&Operation::Write].throttled_ns, 3000);
    assert_eq!(operations.len(), 2);
}

#[test]
fn the_next_boot_counts_on_and_a_detached_device_is_gone() {
    let registry = Registry::default();
    for _ in 0..2 {
        let attached = registry.device("net", "eni-1");
        for _ in 0..2 {
            let mut queue = registry.device("net", "eni-1").queue(0);
            queue.completed(Operation::Receive, 60, Duration::ZERO);
        }
        let report = registry.report();
        assert_eq!(report.devices[0].operations[&Operation::Receive].operations, 2);
        drop(attached);
        assert_eq!(registry.report().devices, []);
    }
}

#[test]
fn readers_see_numbers_that_only_grow_while_a_writer_counts() {
    const COUNT: u64 = 100_000;
    let registry = Registry::default();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut meter = registry.vcpu(3).on_this_thread();
            for _ in 0..COUNT {
                meter.count(Exit::MmioWrite);
            }
        });
        let mut seen = 0;
        while seen < COUNT {
            let report = registry.report();
            let now = report
                .vcpus
                .first()
                .map_or(0, |vcpu| vcpu.exits[&Exit::MmioWrite]);
            assert!(now >= seen);
            seen = now;
        }
    });
}

#[test]
fn a_vcpus_time_goes_on_with_its_next_thread() {
    let registry = Registry::default();
    let run = || {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let meter = registry.vcpu(0).on_this_thread();
                let before = registry.report().vcpus[0].cpu_ns;
                // CPU time, not wall time: it takes what it takes.
                while registry.report().vcpus[0].cpu_ns < before + 1_000_000 {}
                drop(meter);
            });
        });
        registry.report().vcpus[0].cpu_ns
    };
    let first = run();
    assert!(first >= 1_000_000);
    assert!(run() >= first + 1_000_000);
}

#[test]
fn the_report_is_one_object_with_the_documented_names() {
    let registry = Registry::default();
    registry.vcpu(0);
    let device = registry.device("rng", "");
    let mut queue = device.queue(0);
    queue.completed(Operation::Read, 64, Duration::from_nanos(700));
    let json = serde_json::to_string(&registry.report()).unwrap();
    assert_eq!(
        json,
        concat!(
            r#"{"vcpus":[{"id":0,"cpu_ns":0,"exits":{"port_read":0,"port_write":0,"mmio_read":0,"mmio_write":0,"#,
            r#""interrupted":0,"other":0}}],"devices":[{"kind":"rng","id":"","operations":{"read":{"#,
            r#""operations":1,"bytes":64,"errors":0,"throttled":0,"throttled_ns":0,"#,
            r#""latency":{"sum_ns":700,"buckets":[[1024,1]]}}}}]}"#
        )
    );
    let back: Report = serde_json::from_str(&json).unwrap();
    assert_eq!(back, registry.report());
}

proptest! {
    #[test]
    fn every_duration_is_in_the_bucket_of_its_power_of_two(ns in any::<u64>(), shift in 0_u32..64) {
        let ns = ns >> shift;
        let registry = Registry::default();
        let device = registry.device("rng", "");
    let mut queue = device.queue(0);
        queue.completed(Operation::Read, 0, Duration::from_nanos(ns));
        let report = registry.report();
        let buckets = &report.devices[0].operations[&Operation::Read].latency.buckets;
        let [(below, 1)] = buckets[..] else { panic!("{buckets:?}") };
        prop_assert!(ns < below || below == 1 << 40);
        prop_assert!(ns >= below / 2 || below == 2);
    }
}
