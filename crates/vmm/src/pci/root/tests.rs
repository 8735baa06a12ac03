use kvm_ioctls::Kvm;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::*;
use crate::pci::testing::{BARS, Events, Probe};

const WINDOW: (u64, u64) = (1 << 40, 1 << 30);

fn root() -> PciRoot {
    PciRoot::new(Arc::new(Events::default()), WINDOW, HostBridge::DIRECT)
}

/// Of a slot, in the window.
const SHARE: u64 = WINDOW.1 / SLOTS as u64;
const SLOT_1: u32 = 1 << ECAM_DEVICE_SHIFT;

fn read64(root: &PciRoot, offset: u32) -> u64 {
    let mut data = [0; 8];
    let (low, high) = data.split_at_mut(4);
    root.config_read(offset, low);
    root.config_read(offset + 4, high);
    u64::from_le_bytes(data)
}

#[test]
fn functions_get_slots_and_addresses() {
    let root = root();
    root.insert(1, Probe::new()).unwrap();
    root.insert(2, Probe::new()).unwrap();
    assert_eq!(read64(&root, 0) as u32, 0x0008_1b36);
    assert_eq!(read64(&root, SLOT_1) as u32, 0x1041_1af4);
    assert_eq!(read64(&root, 3 * SLOT_1), u64::MAX);
    assert_eq!(read64(&root, SLOT_1 | 0x1000), u64::MAX, "function 1");
    assert_eq!(read64(&root, SLOT_1 + 0x10), (WINDOW.0 + SHARE) | 4);
    assert_eq!(read64(&root, SLOT_1 + 0x18), (WINDOW.0 + SHARE + 0x10_0000) | 4);
    assert_eq!(read64(&root, 2 * SLOT_1 + 0x10), (WINDOW.0 + 2 * SHARE) | 4);
    root.insert(31, Probe::new()).unwrap();
    for wrong in [0, 1, 31, 32, 255] {
        assert!(root.insert(wrong, Probe::new()).is_err(), "slot {wrong}");
    }
}

#[test]
fn bars_answer_while_decoded_and_move_with_their_doorbells() {
    let events = Arc::new(Events::default());
    let root = PciRoot::new(Arc::clone(&events) as _, WINDOW, HostBridge::DIRECT);
    let probe = Probe::new();
    root.insert(1, probe.clone()).unwrap();
    let bar_2 = WINDOW.0 + SHARE + 0x10_0000;
    let read = |root: &PciRoot, address: u64| {
        let mut data = [0];
        root.memory_read(address, &mut data);
        data[0]
    };
    assert_eq!(read(&root, bar_2 + 3), 0xff);
    root.config_write(SLOT_1 + 4, &[2, 0]);
    assert_eq!(read(&root, bar_2 + 3), 0x23);
    assert_eq!(read(&root, bar_2 + 0x10_0000), 0xff);
    root.memory_write(bar_2, &[7]);
    assert_eq!(*probe.last.lock().unwrap(), [7]);

    let taken = |address: u64| events.0.lock().unwrap().contains(&address);
    let moved = WINDOW.0 + 0x50_0000;
    assert!(taken(bar_2 + 0x40) && !taken(moved + 0x40));
    write_bar(probe.as_ref(), 0x18, moved - 0x10_0000);
    root.config_write(SLOT_1 + 0x18, &(moved as u32).to_le_bytes());
    assert_eq!((read(&root, bar_2), read(&root, moved)), (0xff, 0x20));
    assert!(!taken(bar_2 + 0x40) && taken(moved + 0x40));
    root.reset();
    assert_eq!(read(&root, moved), 0xff);
    assert!(!taken(moved + 0x40));
}

#[test]
fn of_two_bars_at_one_address_the_first_answers_until_it_has_gone() {
    let root = root();
    root.insert(1, Probe::new()).unwrap();
    let second = Probe::new();
    root.insert(2, second.clone()).unwrap();
    root.config_write(SLOT_1 + 4, &[2, 0]);
    write_bar(second.as_ref(), 0x10, WINDOW.0 + SHARE);
    root.config_write(2 * SLOT_1 + 4, &[2, 0]);
    root.memory_write(WINDOW.0 + SHARE, &[1]);
    assert!(second.last.lock().unwrap().is_empty());
    root.config_write(SLOT_1 + 4, &[0, 0]);
    root.memory_write(WINDOW.0 + SHARE, &[2]);
    assert_eq!(*second.last.lock().unwrap(), [2]);
}

/// Over RAM, at the windows' ends, at the end of all addresses, where two of them are at once while a guest sizes
/// the BARs of functions that decode.
#[test]
fn bars_outside_of_the_windows_answer_nowhere() {
    let root = root();
    let probes = [Probe::new(), Probe::new()];
    for (slot, probe) in (1..).zip(&probes) {
        root.insert(slot, Arc::clone(probe) as _).unwrap();
    }
    let (_, size) = BARS[1];
    let (end_32, end_64) = (PCI_WINDOW_32.0 + PCI_WINDOW_32.1, WINDOW.0 + WINDOW.1);
    for (place, answers) in [
        (u64::MAX, false),
        (0, false),
        (PCI_WINDOW_32.0 - size, false),
        (PCI_WINDOW_32.0, true),
        (end_32 - size, true),
        (end_32, false),
        (WINDOW.0 - size, false),
        (WINDOW.0, true),
        (end_64 - size, true),
        (end_64, false),
    ] {
        for (slot, probe) in (1..).zip(&probes) {
            write_bar(probe.as_ref(), 0x18, place);
            root.config_write(slot * SLOT_1 + 4, &[0, 0]);
            root.config_write(slot * SLOT_1 + 4, &[2, 0]);
            root.check();
        }
        let mut data = [0];
        root.memory_read(place & !(size - 1), &mut data);
        assert_eq!(data != [0xff], answers, "at {place:#x}");
    }
}

#[test]
fn kvm_knows_the_doorbells_of_decoded_bars() {
    let Ok(vm) = Kvm::new().and_then(|kvm| kvm.create_vm()) else {
        eprintln!("SKIPPED: kvm_knows_the_doorbells_of_decoded_bars: no KVM");
        return;
    };
    let vm: Arc<dyn IoEvents> = Arc::new(vm);
    let root = PciRoot::new(Arc::clone(&vm), WINDOW, HostBridge::DIRECT);
    root.insert(1, Probe::new()).unwrap();
    root.config_write(SLOT_1 + 4, &[2, 0]);
    let other = EventFd::new(EFD_NONBLOCK).unwrap();
    let doorbells = root.decoded_doorbells();
    assert_eq!(doorbells.len(), 1);
    vm.register(doorbells[0], &other)
        .expect_err("a doorbell that is taken");
    root.reset();
    vm.register(doorbells[0], &other).unwrap();
}

/// vCPUs at work on a slot whose function comes and goes: nothing deadlocks, leaks or answers for another slot.
#[test]
fn functions_come_and_go_under_running_vcpus() {
    const ROUNDS: usize = 300;
    let root = root();
    let stays = Probe::new();
    root.insert(1, stays.clone()).unwrap();
    root.config_write(SLOT_1 + 4, &[2, 0]);
    let over = std::sync::atomic::AtomicBool::new(false);
    let bars = [
        WINDOW.0 + SHARE,
        WINDOW.0 + 2 * SHARE,
        WINDOW.0 + 2 * SHARE + 0x10_0040,
    ];
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Acquire) {
                    root.config_write(2 * SLOT_1 + 4, &[2, 0]);
                    for address in bars {
                        let mut data = [0; 4];
                        root.memory_read(address, &mut data);
                        root.memory_write(address, &data);
                    }
                    let mut there = [0; 4];
                    root.config_read(SLOT_1, &mut there);
                    assert_eq!(there, 0x1041_1af4_u32.to_le_bytes());
                    root.config_write(2 * SLOT_1 + 4, &[0, 0]);
                }
            });
        }
        for _ in 0..ROUNDS {
            let probe = Probe::new();
            root.insert(2, probe.clone()).unwrap();
            assert!(root.insert(2, Probe::new()).is_err());
            // The one whose life ends here is mapped, or not yet, or not any more.
            std::thread::yield_now();
            assert!(root.remove(2) && !root.remove(2));
            // vCPUs let go of it; then nobody has it.
            while Arc::strong_count(&probe) > 1 {
                std::thread::yield_now();
            }
        }
        over.store(true, std::sync::atomic::Ordering::Release);
    });
    assert_eq!(root.decoded_doorbells().len(), 1);
    root.reset();
    assert_eq!(root.decoded_doorbells().len(), 0);
}
