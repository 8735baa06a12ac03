//! Boots real guests under real KVM, as the agent would: by a spec, over inherited descriptors.
//!
//! `HEARTH_KERNEL` and `HEARTH_INITRD` name an ELF kernel and the benchmarks' initrd (one line, then power-off,
//! or a restart with `-- reboot`), `HEARTH_BZIMAGE` the kernel as a bzImage, `HEARTH_TINY_AMI` a raw disk;
//! `HEARTH_CMDLINE` is added to the command line.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "boot/guest.rs"]
mod guest;

use std::time::Duration;

use guest::{Guest, Root, files};
use hearth_vmm::control::{Event, Reply, Request, VmState};
use hearth_vmm::spec::Outcome;

/// Ten seconds where KVM interprets the guest kernel, minutes if the machine is busy as well.
const BOOT: Duration = Duration::from_secs(500);
const FIRST_LINE: &str = "hearth-init: first line";

fn kernel(test: &str, vcpus: u8, init_arguments: &str) -> Option<Guest> {
    let [kernel, initrd] = files(test, ["HEARTH_KERNEL", "HEARTH_INITRD"])?;
    Some(Guest::start(
        vcpus,
        &Root::Kernel {
            kernel,
            initrd,
            init_arguments,
        },
    ))
}

#[test]
fn kernel_and_initrd_reach_the_first_line_and_power_off() {
    let Some(mut guest) = kernel("kernel_and_initrd", 1, "") else {
        return;
    };
    let Some(Event::Entered {
        boots: 1,
        first_entry_micros,
        ..
    }) = guest.next_event(BOOT)
    else {
        panic!("no first entry");
    };
    eprintln!("first vCPU entry after {first_entry_micros} µs");
    assert_eq!(guest.next_event(BOOT), None);
    assert_eq!(guest.outcome(), Outcome::GuestPowerOff);
    assert!(guest.console().contains(FIRST_LINE), "{}", guest.console());
}

#[test]
fn a_bzimage_is_unpacked_and_entered() {
    let test = "a_bzimage_is_unpacked_and_entered";
    let Some([kernel, initrd]) = files(test, ["HEARTH_BZIMAGE", "HEARTH_INITRD"]) else {
        return;
    };
    let mut guest = Guest::start(
        1,
        &Root::Kernel {
            kernel,
            initrd,
            init_arguments: "",
        },
    );
    assert!(matches!(guest.next_event(BOOT), Some(Event::Entered { .. })));
    assert_eq!(guest.next_event(BOOT), None);
    assert_eq!(guest.outcome(), Outcome::GuestPowerOff);
    assert!(guest.console().contains(FIRST_LINE));
}

#[test]
fn a_guests_restart_is_a_fresh_boot_in_the_same_process() {
    let Some(mut guest) = kernel("a_guests_restart", 2, "reboot") else {
        return;
    };
    assert!(matches!(
        guest.next_event(BOOT),
        Some(Event::Entered { boots: 1, .. })
    ));
    assert_eq!(guest.next_event(BOOT), Some(Event::Reset { boots: 2 }));
    assert!(matches!(
        guest.next_event(BOOT),
        Some(Event::Entered { boots: 2, .. })
    ));
    // Init ran on two processors before it asked for the restart.
    assert!(guest.console().contains(FIRST_LINE));
    assert_eq!(guest.request(&Request::Stop), Reply::Ok);
    assert_eq!(guest.next_event(BOOT), None);
    assert_eq!(guest.outcome(), Outcome::Stopped);
}

#[test]
fn clients_see_the_state_and_pull_the_reset_line() {
    const RESETS: u64 = 20;
    let Some(mut guest) = kernel("clients_see_the_state", 2, "") else {
        return;
    };
    assert!(matches!(
        guest.next_event(BOOT),
        Some(Event::Entered { boots: 1, .. })
    ));
    let descriptors = guest.descriptors();
    for boots in 2..2 + RESETS {
        assert_eq!(guest.request(&Request::Reset), Reply::Ok);
        assert_eq!(guest.next_event(BOOT), Some(Event::Reset { boots }));
        assert!(matches!(guest.next_event(BOOT), Some(Event::Entered { boots: b, .. }) if b == boots));
    }
    assert_eq!(guest.descriptors(), descriptors, "resets leak descriptors");
    let Reply::Status(status) = guest.request(&Request::Status) else {
        panic!("no status");
    };
    assert_eq!((status.state, status.boots), (VmState::Running, 1 + RESETS));
    assert!(status.first_entry_micros > 0);
    let Reply::Metrics(report) = guest.request(&Request::Metrics) else {
        panic!("no metrics");
    };
    let ids: Vec<_> = report.vcpus.iter().map(|vcpu| vcpu.id).collect();
    assert_eq!(ids, [0, 1]);
    assert!(report.vcpus[0].cpu_ns > 0);
    assert_eq!(guest.request(&Request::Stop), Reply::Ok);
    assert_eq!(guest.next_event(BOOT), None);
    assert_eq!(guest.outcome(), Outcome::Stopped);
}

#[test]
fn a_disk_without_a_kernel_says_so() {
    let test = "a_disk_without_a_kernel_says_so";
    let Some([]) = files(test, []) else { return };
    let disk = tempfile::NamedTempFile::new().unwrap();
    disk.as_file().set_len(1 << 20).unwrap();
    let mut guest = Guest::start(1, &Root::Disk(disk.path().into()));
    assert_eq!(guest.next_event(BOOT), None);
    let Outcome::StartFailed { message } = guest.outcome() else {
        panic!("{:?}", guest.outcome());
    };
    assert!(message.contains("finding a kernel on the root disk"), "{message}");
}

/// The tiny AMI from its own disk: kernel found on it, root on /dev/vda, and the power button ends it.
#[test]
fn the_tiny_ami_boots_from_its_disk_and_heeds_the_power_button() {
    let test = "the_tiny_ami_boots_from_its_disk";
    let Some([ami]) = files(test, ["HEARTH_TINY_AMI"]) else {
        return;
    };
    let copy = tempfile::NamedTempFile::new().unwrap();
    std::fs::copy(ami, copy.path()).unwrap();
    let mut guest = Guest::start(1, &Root::Disk(copy.path().into()));
    assert!(matches!(guest.next_event(BOOT), Some(Event::Entered { .. })));
    guest.wait_for_console(TINY_AMI_IS_UP, BOOT);
    assert_eq!(guest.request(&Request::PowerButton), Reply::Ok);
    assert_eq!(guest.next_event(BOOT), None);
    assert_eq!(guest.outcome(), Outcome::GuestPowerOff, "{}", guest.console());
}

/// What its init prints once it runs and hears the power button.
const TINY_AMI_IS_UP: &str = "hearth-tiny: ready in";
