//! A machine that firmware booted, after a reset and in a snapshot.

use std::fs::File;

use hearth_vmm::control::Event;
use hearth_vmm::snapshot::Kind;
use hearth_vmm::spec::{BootSpec, MemorySpec, RestoreSpec};

use super::guest::Guest;
use super::harness::Linux;
use super::{PATIENCE, entry, firmware};

#[test]
fn a_guest_reboots_through_firmware_from_a_snapshot_too() {
    let Some(files) = firmware("reboot_by_firmware") else {
        return;
    };
    let mut linux = Linux::on(files.boot("unified.raw"));
    linux.wait_for_shell();
    // Nothing is kept but the disk.
    linux.ok("echo forgotten > /tmp/what");
    linux.start("reboot -f");
    linux.wait_for_shell();
    assert_eq!(entry(&mut linux), "unified");
    assert_ne!(linux.run("cat /tmp/what").0, 0);

    linux.ok("echo remembered > /tmp/what");
    let (state, memory) = linux.control().snapshot(Kind::Full { track: false });
    drop(linux);
    let restored = Guest::launch(|spec, fds| {
        files.attach(files.copy("unified.raw"), spec, fds);
        spec.boot = BootSpec::Firmware {
            firmware_fd: fds.give(File::open(&files.firmware).unwrap()),
        };
        spec.restore = Some(RestoreSpec {
            state_fd: fds.give(state),
            memory: MemorySpec::File {
                fd: fds.give(memory),
                verify: true,
            },
            track: false,
        });
    });
    let mut linux = Linux::on(restored);
    assert!(matches!(
        linux.control().next_event(PATIENCE),
        Some(Event::Entered { .. })
    ));
    assert_eq!(linux.ok("cat /tmp/what"), "remembered");
    // The firmware's runtime services, and the devices behind them, are there still.
    linux.ok("grep -q 80860d57 /proc/bus/pci/devices");
    linux.start("reboot -f");
    linux.wait_for_shell();
    assert_ne!(linux.run("cat /tmp/what").0, 0);
}
