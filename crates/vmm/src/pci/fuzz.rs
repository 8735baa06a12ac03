//! A hostile guest on the bus: configuration space, BARs and hot-plug registers, while the host attaches functions
//! and takes them out.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::hotplug::{FIRST_PORT, HotPlug, PORTS};
use super::ports;
use super::root::{HostBridge, PciRoot, SLOTS};
use super::testing::{BELL, Events, Probe};
use crate::bus::Bus;
use crate::console::Line;
use crate::fuzz::Input;
use crate::legacy::firmware::FirmwarePorts;
use crate::legacy::serial::Serial;
use crate::legacy::{cmos, pm_timer};
use crate::memory::{ECAM_BASE, GIB, LOCAL_APIC_BASE, Layout, MIB, PCI_WINDOW_32};
use crate::notices::Notices;

/// Of one input: more only take longer.
const STEPS: usize = 300;
/// The 64-bit window, above little RAM.
const WINDOW: (u64, u64) = (64 * GIB, 64 * GIB);

struct Bench {
    root: Arc<PciRoot>,
    hotplug: Arc<HotPlug>,
    bus: Bus,
    notices: Arc<Notices>,
    events: Arc<Events>,
    /// Slots that the host has filled, and those that it wants back.
    filled: BTreeSet<u8>,
    asked: BTreeSet<u8>,
}

pub(crate) fn bus(input: &[u8]) {
    let mut input = Input(input);
    let mut bench = Bench::new();
    for slot in [1, 2, 31] {
        bench.attach(slot);
    }
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        bench.step(&mut input);
        bench.check();
    }
    bench.bus.reset();
    bench.check();
    assert!(
        bench.events.0.lock().unwrap().is_empty(),
        "a reset leaves a BAR decoded"
    );
}

/// Hot-plug's ports and some beside them, or firmware's.
fn port(input: &mut Input<'_>) -> u16 {
    const FIRMWARE: [RangeInclusive<u16>; 3] = [
        cmos::INDEX_PORT..=cmos::DATA_PORT,
        pm_timer::PORT..=pm_timer::LAST_PORT,
        ports::ADDRESS_PORT..=ports::LAST_PORT,
    ];
    let choice = input.byte();
    if choice < 0x80 {
        return FIRST_PORT - 2 + u16::from(choice) % (PORTS + 4);
    }
    let mut all = FIRMWARE.into_iter().flatten().cycle();
    all.nth(usize::from(choice)).unwrap_or(ports::ADDRESS_PORT)
}

impl Bench {
    fn new() -> Self {
        let events = Arc::new(Events::default());
        let root = Arc::new(PciRoot::new(
            Arc::clone(&events) as _,
            WINDOW,
            HostBridge::FIRMWARE,
        ));
        let notices = Arc::new(Notices::new().unwrap());
        let event = || EventFd::new(EFD_NONBLOCK).unwrap();
        let hotplug = HotPlug::new(Arc::clone(&root), Arc::clone(&notices), event());
        let hotplug = Arc::new(hotplug);
        let serial = Arc::new(Serial::new(event(), &Line::new().unwrap()));
        let bus = Bus::new(
            serial,
            Arc::clone(&root),
            Arc::clone(&hotplug),
            Some(FirmwarePorts::new(
                &Layout::new(512 * MIB),
                Arc::clone(&root),
                Arc::clone(&notices),
            )),
            Arc::clone(&notices),
        );
        Self {
            root,
            hotplug,
            bus,
            notices,
            events,
            filled: BTreeSet::new(),
            asked: BTreeSet::new(),
        }
    }

    fn attach(&mut self, slot: u8) {
        let may = (1..SLOTS).contains(&slot) && !self.filled.contains(&slot);
        assert_eq!(self.root.insert(slot, Probe::new()).is_ok(), may, "slot {slot}");
        if may {
            self.filled.insert(slot);
            self.hotplug.announce(slot).unwrap();
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let what = input.byte();
        match what % 8 {
            0 => self.attach(input.byte() % (SLOTS + 2)),
            1 => {
                let slot = input.byte() % SLOTS;
                if self.filled.contains(&slot) {
                    self.hotplug.ask(slot).unwrap();
                    self.asked.insert(slot);
                }
            }
            2 => {
                let slot = input.byte() % SLOTS;
                if self.filled.remove(&slot) {
                    self.hotplug.forget(slot);
                    assert!(self.root.remove(slot));
                    self.asked.remove(&slot);
                }
            }
            3 => {
                let port = port(input);
                let len = width(input);
                self.bus.port_read(port, &mut [0; 8][..len]);
            }
            4 => {
                let port = port(input);
                let len = width(input);
                self.bus.port_write(port, input.bytes(len));
                self.let_go();
            }
            5 => {
                let (address, len) = (address(input), width(input));
                self.bus.mmio_read(address, &mut [0; 8][..len]);
            }
            6 => {
                let (address, len) = (address(input), width(input));
                self.bus.mmio_write(address, input.bytes(len));
            }
            // As a driver that knows what it does: a BAR to a place of the input's choice.
            _ => {
                let (slot, bar) = (input.byte() % SLOTS, what >> 3 & 2);
                let config = ECAM_BASE + (u64::from(slot) << 15);
                let place = address(input).to_le_bytes();
                let register = config + 0x10 + 4 * u64::from(bar);
                self.bus.mmio_write(register, &place[..4]);
                self.bus.mmio_write(register + 4, &place[4..]);
                self.bus.mmio_write(config + 4, &[what >> 5 & 2, 0]);
            }
        }
    }

    /// An ejection concerns slots that the host wants back, and no others.
    fn let_go(&mut self) {
        let gone: Vec<u8> = (self.filled.iter().copied())
            .filter(|&slot| !self.root.is_taken(slot))
            .collect();
        for slot in &gone {
            assert!(
                self.asked.remove(slot),
                "nobody asked for the ejection of slot {slot}"
            );
            self.filled.remove(slot);
        }
        assert_eq!(self.notices.take().len(), gone.len());
    }

    fn check(&self) {
        self.root.check();
        let mut doorbells = self.root.decoded_doorbells();
        doorbells.sort_unstable();
        let registered: Vec<u64> = self.events.0.lock().unwrap().iter().copied().collect();
        assert_eq!(
            registered, doorbells,
            "doorbells of BARs that nobody decodes, or none"
        );
        assert!(self.root.is_taken(0), "the host bridge is gone");
    }
}

/// Places worth a visit: registers, where BARs were at first, the windows' ends, RAM, interrupt controllers, the end
/// of all addresses.
fn address(input: &mut Input<'_>) -> u64 {
    let place = input.byte();
    let by = input.number(2);
    let slot = u64::from(place >> 3);
    match place % 8 {
        0 | 1 => ECAM_BASE + (slot << 15) + by % 0x40,
        2 => ECAM_BASE + (slot << 15) + by,
        3 => WINDOW.0 + slot * (WINDOW.1 / u64::from(SLOTS)) + (by << 8 | BELL),
        4 => PCI_WINDOW_32.0 + (slot << 20) + by,
        5 => PCI_WINDOW_32.0 + PCI_WINDOW_32.1 - (by << 8),
        6 => [0, LOCAL_APIC_BASE, WINDOW.0 + WINDOW.1, u64::MAX][slot as usize % 4].wrapping_sub(by << 8),
        _ => input.number(8),
    }
}

/// KVM's exits are of 1 to 8 bytes.
fn width(input: &mut Input<'_>) -> usize {
    1 + usize::from(input.byte()) % 8
}
