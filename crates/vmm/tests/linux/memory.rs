//! Memory that comes back from the guest, and what the guest says of it.

use std::time::{Duration, Instant};

use hearth_vmm::control::{BalloonStatus, Event, Reply, Request};
use hearth_vmm::metrics::Operation;
use hearth_vmm::spec::{BalloonOptions, BootSpec};
use hearth_vmm::virtio::balloon::Statistic;

use super::harness::Linux;

const PATIENCE: Duration = Duration::from_secs(400);
const KIB_PER_MIB: u64 = 1024;
/// What the guest uses and frees again. Little: a page costs it a millisecond where KVM interprets its kernel.
const USED_MIB: u64 = 6;
/// Of the guest with the balloon: its kernel takes 18 of them.
const MEMORY_MIB: u64 = 48;
/// What must have come back of it.
const BACK_KIB: u64 = 3 * KIB_PER_MIB;

/// Lets the guest use memory for a file and free it, which the host does not notice by itself; the monitor's
/// resident KiB in between.
fn use_memory(linux: &mut Linux) -> u64 {
    linux.ok(&format!(
        "busybox dd if=/dev/zero of=/file bs=1M count={USED_MIB} 2>/dev/null"
    ));
    let full = linux.memory_kib("Rss");
    linux.ok("rm /file");
    full
}

/// Looks again whenever the guest has run a little.
fn wait_until(linux: &mut Linux, what: &str, mut condition: impl FnMut(&mut Linux) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition(linux) {
        let resident = linux.memory_kib("Rss");
        assert!(
            Instant::now() < deadline,
            "{what}: {:?}, {resident} KiB",
            balloon(linux)
        );
        linux.ok("usleep 1000000");
    }
}

fn balloon(linux: &mut Linux) -> BalloonStatus {
    match linux.control().request(&Request::Balloon) {
        Reply::Balloon(status) => status,
        reply => panic!("{reply:?}"),
    }
}

fn set_target(linux: &mut Linux, mib: u64) -> Reply {
    linux.control().request(&Request::SetBalloonTarget { mib })
}

#[test]
fn a_balloon_takes_memory_from_the_guest_and_gives_it_back() {
    let options = BalloonOptions {
        deflate_on_oom: true,
        ..BalloonOptions::default()
    };
    let booted = Linux::boot("a_balloon_takes_memory", |spec, _| {
        spec.memory_mib = MEMORY_MIB;
        spec.balloon = Some(options);
    });
    let Some(mut linux) = booted else { return };
    let full = use_memory(&mut linux);
    // Nearly all that is free, so that what the host still has of it is among it.
    assert_eq!(set_target(&mut linux, 26), Reply::Ok);
    wait_until(&mut linux, "inflating", |linux| {
        linux.memory_kib("Rss") + BACK_KIB < full
    });
    let inflated = linux.memory_kib("Rss");
    let actual = balloon(&mut linux).actual_mib;
    eprintln!("{full} KiB resident, {inflated} KiB with {actual} MiB in the balloon");

    let refresh = linux.control().request(&Request::RefreshBalloonStatistics);
    assert_eq!(refresh, Reply::Ok);
    let statistics = loop {
        match linux.control().next_event(PATIENCE) {
            Some(Event::BalloonStatistics(status)) => break status.statistics,
            Some(_) => {}
            None => panic!("no statistics"),
        }
    };
    let (free, total) = (
        statistics[&Statistic::FreeBytes],
        statistics[&Statistic::TotalBytes],
    );
    assert!(
        0 < free && free < total && total < MEMORY_MIB << 20,
        "{statistics:?}"
    );

    let less = actual - 2;
    assert_eq!(set_target(&mut linux, less), Reply::Ok);
    wait_until(&mut linux, "deflating", |linux| balloon(linux).actual_mib == less);
    let Reply::Error { message } = set_target(&mut linux, MEMORY_MIB + 1) else {
        panic!("a balloon larger than the machine");
    };
    assert!(message.contains("49 MiB"), "{message}");
}

#[test]
fn free_pages_go_back_to_the_host() {
    let options = BalloonOptions {
        free_page_reporting: true,
        ..BalloonOptions::default()
    };
    let booted = Linux::boot("free_pages_go_back", |spec, _| {
        spec.balloon = Some(options);
        // Blocks of half a MiB, for a guest that frees so little.
        if let BootSpec::Kernel { cmdline, .. } = &mut spec.boot {
            cmdline.push_str(" page_reporting.page_reporting_order=7");
        }
    });
    let Some(mut linux) = booted else { return };
    let full = use_memory(&mut linux);
    wait_until(&mut linux, "reporting", |linux| {
        linux.memory_kib("Rss") + BACK_KIB < full
    });
    let Reply::Metrics(report) = linux.control().request(&Request::Metrics) else {
        panic!("no metrics");
    };
    let balloon = report.devices.iter().find(|device| device.kind == "balloon");
    let reported = &balloon.unwrap().operations[&Operation::ReportFree];
    let resident = linux.memory_kib("Rss");
    eprintln!(
        "{full} KiB resident, {resident} KiB after {} MiB were reported",
        reported.bytes >> 20
    );
    assert!(
        reported.bytes >= BACK_KIB * 1024 && reported.errors == 0,
        "{reported:?}"
    );
    // What comes back is memory as ever.
    linux.ok("echo well > /file && grep well /file");
}
