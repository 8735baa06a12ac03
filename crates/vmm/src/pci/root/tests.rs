use kvm_ioctls::Kvm;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::*;

const WINDOW: (u64, u64) = (1 << 40, 1 << 30);

/// Two BARs; BAR 2 has a doorbell and remembers the last write.
struct Probe {
    config: Mutex<ConfigSpace>,
    bell: EventFd,
    last: Mutex<Vec<u8>>,
}

impl Probe {
    fn new() -> Arc<Self> {
        let mut config = ConfigSpace::new(0x1af4, 0x1041, 1, 0x02_0000, 0, 0);
        config.add_bar64(0, 0x1000);
        config.add_bar64(2, 0x10_0000);
        Arc::new(Self {
            config: Mutex::new(config),
            bell: EventFd::new(EFD_NONBLOCK).unwrap(),
            last: Mutex::default(),
        })
    }
}

impl PciFunction for Probe {
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        self.config.lock().unwrap().read(offset, data);
    }

    fn config_write(&self, offset: u16, data: &[u8]) -> Decoding {
        self.config.lock().unwrap().write(offset, data)
    }

    fn bars(&self) -> Vec<Bar> {
        self.config.lock().unwrap().bars()
    }

    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) {
        data.fill(bar * 16 + offset as u8);
    }

    fn bar_write(&self, _bar: u8, _offset: u64, data: &[u8]) {
        *self.last.lock().unwrap() = data.to_vec();
    }

    fn doorbells(&self) -> Vec<Doorbell> {
        let event = self.bell.try_clone().unwrap();
        vec![Doorbell {
            bar: 2,
            offset: 0x40,
            event,
        }]
    }

    fn reset(&self) {
        self.config.lock().unwrap().reset();
    }
}

/// `None`, loudly, where there is no KVM.
fn root(test: &str) -> Option<PciRoot> {
    match Kvm::new().and_then(|kvm| kvm.create_vm()) {
        Ok(vm) => Some(PciRoot::new(Arc::new(vm), WINDOW)),
        Err(error) => {
            eprintln!("SKIPPED: {test}: no KVM: {error}");
            None
        }
    }
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
    let Some(root) = root("functions_get_slots_and_addresses") else {
        return;
    };
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
    let Some(root) = root("bars_answer_while_decoded_and_move_with_their_doorbells") else {
        return;
    };
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

    // KVM holds the doorbell of the decoded BAR: registering it again clashes, elsewhere it does not.
    let taken = |address: u64| {
        let address = IoEventAddress::Mmio(address);
        let result = root.vm.register_ioevent(&probe.bell, &address, NoDatamatch);
        if result.is_ok() {
            root.vm
                .unregister_ioevent(&probe.bell, &address, NoDatamatch)
                .unwrap();
        }
        result.is_err()
    };
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
fn of_two_bars_at_one_address_the_first_answers() {
    let Some(root) = root("of_two_bars_at_one_address_the_first_answers") else {
        return;
    };
    root.insert(1, Probe::new()).unwrap();
    let second = Probe::new();
    root.insert(2, second.clone()).unwrap();
    root.config_write(SLOT_1 + 4, &[2, 0]);
    write_bar(second.as_ref(), 0x10, WINDOW.0 + SHARE);
    root.config_write(2 * SLOT_1 + 4, &[2, 0]);
    root.memory_write(WINDOW.0 + SHARE, &[1]);
    assert!(second.last.lock().unwrap().is_empty());
}

/// vCPUs at work on a slot whose function comes and goes: nothing deadlocks, leaks or answers for another slot.
#[test]
fn functions_come_and_go_under_running_vcpus() {
    const ROUNDS: usize = 300;
    let Some(root) = root("functions_come_and_go_under_running_vcpus") else {
        return;
    };
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
    assert_eq!(root.mappings.read().unwrap().len(), 2);
    root.reset();
    assert_eq!(root.mappings.read().unwrap().len(), 0);
}
