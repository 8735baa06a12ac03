//! The test guest (`crates/testguest`) under the real monitor: each test here boots it with two disks, entropy and
//! what else it needs, and has it run the tests of one device.
//!
//! To see what it prints: `hearth-vmm run --kernel TESTGUEST --cmdline only=rng`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod balloon;
mod clone;
mod hotplug;
#[path = "../boot/guest.rs"]
mod monitor;
mod program;
mod replacement;
mod report;
mod tap;
mod vsock;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

use hearth_vmm::limits::RateLimit;
use hearth_vmm::spec::{BootSpec, Cache, DiskBacking, DiskSpec, NicSpec, Outcome, VmSpec};
use monitor::{Guest, Inherited, files};
use report::Report;

/// The guest's own patience is shorter: this is for a guest that does not run at all.
const PATIENCE: Duration = Duration::from_secs(300);
const DISK_SECTORS: u64 = 16 << 20 >> 9;

/// Has a machine run the tests of `group`, at least as many as that.
fn run(
    group: &str,
    at_least: usize,
    queues: impl IntoIterator<Item = OwnedFd>,
    change: impl FnOnce(&mut VmSpec, &mut Inherited),
) {
    if let Some(guest) = start(group, &format!("only=root::,{group}::"), queues, change) {
        finish(guest, at_least);
    }
}

/// `None`, loudly, where there is no KVM.
fn start(
    test: &str,
    cmdline: &str,
    queues: impl IntoIterator<Item = OwnedFd>,
    change: impl FnOnce(&mut VmSpec, &mut Inherited),
) -> Option<Guest> {
    let [] = files(test, [])?;
    Some(launch(cmdline, queues, change))
}

/// There is a NIC if a TAP's queues are given for it; `change` has the last word about the machine.
fn launch(
    cmdline: &str,
    queues: impl IntoIterator<Item = OwnedFd>,
    change: impl FnOnce(&mut VmSpec, &mut Inherited),
) -> Guest {
    let program = program::build();
    Guest::launch(|spec, fds| {
        spec.memory_mib = 64;
        // As many as a disk has queues; the guest uses only the first.
        spec.vcpus = 2;
        spec.boot = BootSpec::Kernel {
            kernel_fd: fds.give(File::open(program).unwrap()),
            initrd_fd: None,
            cmdline: cmdline.into(),
        };
        spec.disks = (0..2)
            .map(|index| DiskSpec {
                id: format!("vol-{index:017}"),
                serial: format!("vol{index:017}"),
                read_only: index == 1,
                cache: Cache::default(),
                rate_limit: Default::default(),
                backing: DiskBacking::Raw {
                    fd: fds.give(pattern_disk()),
                },
            })
            .collect();
        let tap_fds: Vec<_> = queues.into_iter().map(|queue| fds.give(queue)).collect();
        if !tap_fds.is_empty() {
            spec.nics.push(NicSpec {
                id: "eni-0123456789abcdef0".into(),
                mac: "02:00:00:00:00:02".into(),
                tap_fds,
                mtu: 1500,
                receive_limit: RateLimit::default(),
                transmit_limit: RateLimit::default(),
            });
        }
        change(spec, fds);
    })
}

/// The guest powers off, and all its tests have passed.
fn finish(mut guest: Guest, at_least: usize) {
    while guest.next_event(PATIENCE).is_some() {}
    let console = guest.console();
    let outcome = guest.outcome();
    assert_eq!(outcome, Outcome::GuestPowerOff, "{console}");
    Report::parse(&console).assert_passed(at_least);
}

/// Each sector holds its number, over and over.
fn pattern_disk() -> File {
    let mut disk = BufWriter::new(tempfile::tempfile().unwrap());
    for sector in 0..DISK_SECTORS {
        disk.write_all(&sector.to_le_bytes().repeat(64)).unwrap();
    }
    disk.into_inner().unwrap()
}

#[test]
fn block() {
    run("block", 80, None, |_, _| {});
}

#[test]
fn read_only_block() {
    run("read_only_block", 55, None, |_, _| {});
}

#[test]
fn rng() {
    run("rng", 55, None, |_, _| {});
}

#[test]
fn net() {
    if let Some(queues) = tap::queues_in_a_namespace::<2>("net") {
        run("net", 75, queues, |_, _| {});
    }
}
