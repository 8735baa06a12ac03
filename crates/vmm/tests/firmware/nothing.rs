//! Disks that do not boot: the outcome and the console say so, and the machine can be stopped.

use hearth_vmm::control::{Reply, Request};
use hearth_vmm::lifecycle::queue::NOTHING_BOOTABLE;
use hearth_vmm::spec::Outcome;

use super::{PATIENCE, firmware};

#[test]
fn a_disk_without_a_loader_or_with_a_broken_one_ends_as_not_started() {
    let Some(files) = firmware("nothing_bootable") else {
        return;
    };
    for disk in ["none.raw", "broken.raw"] {
        let mut guest = files.boot(disk);
        let message = NOTHING_BOOTABLE.to_owned();
        assert_eq!(guest.outcome(), Outcome::StartFailed { message });
        let console = guest.console();
        assert!(console.contains("failed to load Boot"), "{console}");
        assert!(
            console.contains("No bootable option or device was found"),
            "{console}"
        );
    }
}

#[test]
fn a_machine_whose_loader_hangs_can_be_stopped() {
    let Some(files) = firmware("hanging_loader") else {
        return;
    };
    let mut guest = files.boot("hanging.raw");
    guest.wait_for_console("starting Boot", PATIENCE);
    // The loader knows no power button.
    assert!(matches!(guest.request(&Request::PowerButton), Reply::Ok));
    assert!(matches!(guest.request(&Request::Stop), Reply::Ok));
    assert_eq!(guest.outcome(), Outcome::Stopped);
}
