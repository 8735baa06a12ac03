//! Disks that come and go while the guest drives them: it says on its console when it wants which.

use std::os::fd::AsFd as _;
use std::time::Duration;

use hearth_vmm::control::{Event, Reply, Request};
use hearth_vmm::spec::{Cache, DiskBacking, DiskSpec};

use super::{finish, pattern_disk, start};

const ROUNDS: u32 = 20;
/// The guest has less.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn hotplug() {
    let cmdline = format!("only=hotplug:: hotplug={ROUNDS}");
    let Some(mut guest) = start("hotplug", &cmdline, None, |_, _| {}) else {
        return;
    };
    assert!(matches!(guest.next_event(PATIENCE), Some(Event::Entered { .. })));
    for round in 0..ROUNDS {
        guest.wait_for_console(&format!("hotplug: attach {round}\n"), PATIENCE);
        let id = format!("vol-a{round:016}");
        let attach = Request::AttachDisk(DiskSpec {
            id: id.clone(),
            serial: "attached".into(),
            read_only: false,
            cache: Cache::default(),
            rate_limit: Default::default(),
            backing: DiskBacking::Raw { fd: 0 },
        });
        assert_eq!(guest.request_with(&attach, &[pattern_disk().as_fd()]), Reply::Ok);
        guest.wait_for_console(&format!("hotplug: detach {round}\n"), PATIENCE);
        let detach = Request::Detach {
            device: id.clone(),
            force: false,
        };
        assert_eq!(guest.request(&detach), Reply::Ok);
        assert_eq!(
            guest.next_event(PATIENCE),
            Some(Event::DeviceDetached { device: id })
        );
    }
    finish(guest, 1);
}
