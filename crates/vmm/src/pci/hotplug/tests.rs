use std::sync::Barrier;
use std::thread;

use vmm_sys_util::eventfd::EFD_NONBLOCK;

use super::*;
use crate::pci::root::HostBridge;
use crate::pci::testing::{Events, Probe};

struct Bench {
    hotplug: HotPlug,
    root: Arc<PciRoot>,
    notices: Arc<Notices>,
    interrupt: EventFd,
}

impl Bench {
    fn new() -> Self {
        let root = Arc::new(PciRoot::new(
            Arc::new(Events::default()),
            (1 << 40, 1 << 30),
            HostBridge::DIRECT,
        ));
        let notices = Arc::new(Notices::new().unwrap());
        let interrupt = EventFd::new(EFD_NONBLOCK).unwrap();
        let line = interrupt.try_clone().unwrap();
        Self {
            hotplug: HotPlug::new(Arc::clone(&root), Arc::clone(&notices), line),
            root,
            notices,
            interrupt,
        }
    }

    /// As AML reads it: a double word, which arrives as four bytes.
    fn register(&self, offset: u16) -> u32 {
        let byte = |n| self.hotplug.read(FIRST_PORT + offset + n);
        u32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)])
    }

    fn eject(&self, slot: u8) {
        self.hotplug.write(FIRST_PORT + EJECT, slot);
    }
}

#[test]
fn arrivals_are_read_once() {
    let bench = Bench::new();
    bench.hotplug.announce(3).unwrap();
    bench.hotplug.announce(31).unwrap();
    assert_eq!(bench.interrupt.read().unwrap(), 2);
    assert_eq!(bench.register(ARRIVED), 1 << 3 | 1 << 31);
    assert_eq!(bench.register(ARRIVED), 0);
    assert_eq!(bench.register(LEAVING), 0);
}

#[test]
fn an_ejection_that_was_asked_for_empties_the_slot_at_once() {
    let bench = Bench::new();
    let probe = Probe::new();
    bench.root.insert(5, Arc::clone(&probe) as _).unwrap();
    bench.hotplug.ask(5).unwrap();
    assert_eq!(bench.register(LEAVING), 1 << 5);
    assert_eq!(bench.register(LEAVING), 0);
    bench.hotplug.ask(5).unwrap();
    assert_eq!(bench.register(LEAVING), 1 << 5, "asked again");
    bench.eject(5);
    assert!(!bench.root.is_taken(5));
    assert_eq!(*probe.resets.lock().unwrap(), 1);
    assert_eq!(bench.notices.take(), [Notice::Ejected]);
    assert_eq!(Arc::strong_count(&probe), 1);
}

#[test]
fn other_ejections_are_ignored() {
    let bench = Bench::new();
    bench.root.insert(5, Probe::new()).unwrap();
    bench.hotplug.ask(6).unwrap();
    for slot in [0, 5, 31, 32, 255] {
        bench.eject(slot);
    }
    bench.hotplug.write(FIRST_PORT, 5);
    assert!(bench.root.is_taken(0) && bench.root.is_taken(5));
    // What was asked of a device that is gone does not concern the next one in its slot.
    bench.hotplug.ask(5).unwrap();
    bench.hotplug.forget(5);
    bench.eject(5);
    assert!(bench.root.is_taken(5));
    assert_eq!(bench.register(LEAVING), 1 << 6);
    assert!(bench.notices.take().is_empty());
}

/// The host takes a function out and puts the next one in, while the guest ejects what it was asked to.
#[test]
fn a_late_ejection_does_not_take_out_who_came_after() {
    const ROUNDS: usize = 20_000;
    const SLOT: u8 = 5;
    let bench = Bench::new();
    let barrier = Barrier::new(2);
    let mut lost = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..ROUNDS {
                barrier.wait();
                bench.eject(SLOT);
                barrier.wait();
            }
        });
        for _ in 0..ROUNDS {
            bench.root.insert(SLOT, Probe::new()).unwrap();
            bench.hotplug.ask(SLOT).unwrap();
            barrier.wait();
            bench.hotplug.forget(SLOT);
            bench.root.remove(SLOT);
            bench.root.insert(SLOT, Probe::new()).unwrap();
            barrier.wait();
            lost += usize::from(!bench.root.remove(SLOT));
            bench.notices.take();
        }
    });
    assert_eq!(lost, 0, "newcomers in {ROUNDS} rounds");
}

#[test]
fn what_the_guest_has_not_heard_of_yet_survives_into_a_clone() {
    let (bench, clone) = (Bench::new(), Bench::new());
    for bench in [&bench, &clone] {
        for slot in [3, 4, 5] {
            bench.root.insert(slot, Probe::new()).unwrap();
        }
    }
    // One has come, one was asked to leave and the guest knows, one was asked and it does not.
    bench.hotplug.ask(4).unwrap();
    assert_eq!(bench.register(LEAVING), 1 << 4);
    bench.hotplug.announce(3).unwrap();
    bench.hotplug.ask(5).unwrap();
    clone.hotplug.restore(&bench.hotplug.save().unwrap()).unwrap();
    assert_eq!(clone.interrupt.read().unwrap(), 1, "told again");
    assert!(clone.hotplug.is_asked(4) && clone.hotplug.is_asked(5) && !clone.hotplug.is_asked(3));
    assert_eq!(clone.register(ARRIVED), 1 << 3);
    assert_eq!(clone.register(LEAVING), 1 << 5);
    clone.eject(3);
    assert!(clone.root.is_taken(3), "nobody asked for it");
    for slot in [4, 5] {
        clone.eject(slot);
        assert!(!clone.root.is_taken(slot));
    }
    assert_eq!(clone.notices.take(), [Notice::Ejected, Notice::Ejected]);
    // Who has heard of everything is told nothing.
    let quiet = Bench::new();
    quiet.hotplug.restore(&clone.hotplug.save().unwrap()).unwrap();
    assert!(quiet.interrupt.read().is_err());
}
