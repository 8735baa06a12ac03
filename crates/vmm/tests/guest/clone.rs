//! A guest that is saved, and restored with a NIC that has another address: it says on its console when to save it.

use std::fs::File;
use std::time::Duration;

use hearth_vmm::control::Event;
use hearth_vmm::snapshot::Kind;
use hearth_vmm::spec::{MemorySpec, RestoreSpec};

use super::{finish, launch, monitor::files, tap};

/// The guest has less.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_clone_gets_a_nic_of_its_own() {
    let test = "a_clone_gets_a_nic_of_its_own";
    let Some([]) = files(test, []) else { return };
    let Some(first_tap) = tap::in_a_namespace(test) else {
        return;
    };
    let mut guest = launch("only=clone:: clone=1", Some(first_tap), |_, _| {});
    guest.wait_for_console("clone: save\n", PATIENCE);
    let (state, memory) = guest.snapshot(Kind::Full { track: false });
    drop(guest);

    let mut clone = launch("", Some(tap::add(0)), |spec, fds| {
        spec.nics[0].mac = "02:00:00:00:00:77".into();
        let copy = |file: &File| file.try_clone().unwrap();
        spec.restore = Some(RestoreSpec {
            state_fd: fds.give(copy(&state)),
            memory: MemorySpec::File {
                fd: fds.give(copy(&memory)),
                verify: true,
            },
            track: false,
        });
    });
    assert!(matches!(clone.next_event(PATIENCE), Some(Event::Entered { .. })));
    let device = "eni-0123456789abcdef0".to_owned();
    assert_eq!(clone.next_event(PATIENCE), Some(Event::DeviceReplaced { device }));
    clone.wait_for_console("clone: [02, 00, 00, 00, 00, 77]\n", PATIENCE);
    finish(clone, 1);
}
