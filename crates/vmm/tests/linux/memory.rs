//! Memory that comes back from the guest, and what the guest says of it.

use std::time::{Duration, Instant};

use hearth_vmm::control::{BalloonStatus, Event, Reply, Request};
use hearth_vmm::metrics::Operation;
use hearth_vmm::spec::{BalloonOptions, BootSpec};
use hearth_vmm::virtio::balloon::Statistic;

use super::harness::Linux;

const PATIENCE: Duration = Duration::from_secs(400);
const KIB_PER_MIB: u64 = 1024;
/// What the guest uses and frees again. A page costs it a millisecond where KVM interprets its kernel.
const USED_MIB: u64 = 48;
/// Of the guest: its files may take half of what its kernel leaves of them.
const MEMORY_MIB: u64 = 128;
/// What must have come back of it.
const BACK_KIB: u64 = 32 * KIB_PER_MIB;
/// What the balloon leaves to the guest, and what a process then wants.
const LEFT_MIB: u64 = 8;
const WANTED_MIB: u64 = 20;
/// What the host gives back at the end.
const RETURNED_MIB: u64 = 24;
/// What the guest's numbers may differ by between one look and the next, and what its kernel keeps for itself.
const SLACK_MIB: u64 = 4;

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

/// Fresh from the guest.
fn statistics(linux: &mut Linux) -> BalloonStatus {
    let refresh = linux.control().request(&Request::RefreshBalloonStatistics);
    assert_eq!(refresh, Reply::Ok);
    loop {
        match linux.control().next_event(PATIENCE) {
            Some(Event::BalloonStatistics(status)) => return status,
            Some(_) => {}
            None => panic!("no statistics"),
        }
    }
}

/// As the guest sees it.
fn meminfo_mib(linux: &mut Linux, field: &str) -> u64 {
    let kib = linux.ok(&format!(
        "sed -n 's/^{field}: *\\([0-9]*\\) kB$/\\1/p' /proc/meminfo"
    ));
    kib.parse::<u64>().unwrap() / KIB_PER_MIB
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
    let target = meminfo_mib(&mut linux, "MemFree") - LEFT_MIB;
    assert_eq!(set_target(&mut linux, target), Reply::Ok);
    wait_until(&mut linux, "inflating", |linux| {
        balloon(linux).actual_mib == target
    });
    let inflated = linux.memory_kib("Rss");
    // All that the host had of it, but for what the guest was left.
    let back = (USED_MIB - LEFT_MIB - SLACK_MIB) * KIB_PER_MIB;
    assert!(inflated + back < full, "{full} KiB, then {inflated}");
    let actual = balloon(&mut linux).actual_mib;
    eprintln!("{full} KiB resident, {inflated} KiB with {actual} MiB in the balloon");

    let before = statistics(&mut linux).statistics;
    for (statistic, field) in [
        (Statistic::FreeBytes, "MemFree"),
        (Statistic::TotalBytes, "MemTotal"),
        (Statistic::AvailableBytes, "MemAvailable"),
    ] {
        let (told, is) = (before[&statistic] >> 20, meminfo_mib(&mut linux, field));
        assert!(told.abs_diff(is) <= SLACK_MIB, "{field}: {told} and {is} MiB");
    }

    // A process needs more than the guest was left: that comes out of the balloon, and nobody is killed.
    let available = meminfo_mib(&mut linux, "MemAvailable");
    assert!(available < WANTED_MIB, "{available} MiB");
    linux.ok(&format!(
        "busybox dd if=/dev/zero of=/dev/null bs={WANTED_MIB}M count=1 2>/dev/null"
    ));
    let after = statistics(&mut linux);
    eprintln!(
        "{} MiB in the balloon after a process had {WANTED_MIB} MiB, with {available} MiB available",
        after.actual_mib
    );
    assert!(
        after.actual_mib < target && after.target_mib == target,
        "{after:?}"
    );
    assert_eq!(
        after.statistics.get(&Statistic::OomKills),
        before.get(&Statistic::OomKills)
    );

    // And comes back when the host has no need of it.
    let few = meminfo_mib(&mut linux, "MemFree");
    let less = after.actual_mib - RETURNED_MIB;
    assert_eq!(set_target(&mut linux, less), Reply::Ok);
    wait_until(&mut linux, "deflating", |linux| balloon(linux).actual_mib == less);
    let many = meminfo_mib(&mut linux, "MemFree");
    assert!(few + RETURNED_MIB <= many + SLACK_MIB, "{few} and {many} MiB");
    let Reply::Error { message } = set_target(&mut linux, MEMORY_MIB + 1) else {
        panic!("a balloon larger than the machine");
    };
    assert!(message.contains("129 MiB"), "{message}");
}

#[test]
fn free_pages_go_back_to_the_host() {
    let options = BalloonOptions {
        free_page_reporting: true,
        ..BalloonOptions::default()
    };
    let booted = Linux::boot("free_pages_go_back", |spec, _| {
        spec.memory_mib = MEMORY_MIB;
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
