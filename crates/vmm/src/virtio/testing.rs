//! A driver as a guest has one, for tests and benchmarks: it finds a function by its capabilities, negotiates, builds rings
//! in guest memory and waits for interrupts. It can also do all of this wrongly.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use vm_memory::{Bytes, GuestAddress};

use super::pci::VirtioPci;
use super::{GuestMemory, VirtioDevice};
use crate::pci::PciFunction;
use crate::pci::msix::{MsiLine, MsiMessage, MsiRouter};

pub const PATIENCE: Duration = Duration::from_secs(20);

pub const ACKNOWLEDGE: u8 = 1;
pub const DRIVER: u8 = 2;
pub const DRIVER_OK: u8 = 4;
pub const FEATURES_OK: u8 = 8;
pub const NEEDS_RESET: u8 = 64;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

pub const EVENT_IDX: u64 = 1 << 29;
pub const VERSION_1: u64 = 1 << 32;

/// Two regions with a hole between them, as around the 32-bit PCI window.
pub const LOW_END: u64 = 0x20_0000;
pub const HIGH_START: u64 = 0x40_0000;
pub const HIGH_END: u64 = 0x60_0000;
/// Free for requests.
pub const DATA: u64 = 0x10_0000;

/// Counts interrupts by MSI data, which the driver sets to the vector's number.
#[derive(Default)]
pub struct Interrupts {
    counts: Mutex<BTreeMap<u32, u64>>,
    changed: Condvar,
}

struct Line {
    interrupts: Arc<Interrupts>,
    data: Mutex<u32>,
}

struct Router(Arc<Interrupts>);

impl MsiRouter for Router {
    fn connect(&self, message: MsiMessage) -> io::Result<Box<dyn MsiLine>> {
        Ok(Box::new(Line {
            interrupts: Arc::clone(&self.0),
            data: Mutex::new(message.data),
        }))
    }
}

impl MsiLine for Line {
    fn set_message(&self, message: MsiMessage) -> io::Result<()> {
        *self.data.lock().unwrap() = message.data;
        Ok(())
    }

    fn signal(&self) -> io::Result<()> {
        *self
            .interrupts
            .counts
            .lock()
            .unwrap()
            .entry(*self.data.lock().unwrap())
            .or_default() += 1;
        self.interrupts.changed.notify_all();
        Ok(())
    }
}

impl Interrupts {
    pub fn count(&self, vector: u16) -> u64 {
        self.counts
            .lock()
            .unwrap()
            .get(&u32::from(vector))
            .copied()
            .unwrap_or(0)
    }

    fn total(&self) -> u64 {
        self.counts.lock().unwrap().values().sum()
    }

    /// Looks at `condition` again after each interrupt, of whatever vector.
    pub fn wait_until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.total();
            if condition() {
                return;
            }
            let counts = self.counts.lock().unwrap();
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no interrupt brought this about: {what}");
            let none_came = |counts: &mut BTreeMap<u32, u64>| counts.values().sum::<u64>() == seen;
            drop(self.changed.wait_timeout_while(counts, left, none_came).unwrap());
        }
    }
}

/// Where the capabilities say that things are.
#[derive(Debug, Default, Clone)]
pub struct Capabilities {
    /// Type of structure to its BAR offset and length.
    pub structures: BTreeMap<u8, (u64, u64)>,
    pub notify_off_multiplier: u64,
    pub pci_cfg: u16,
    pub msix: u16,
    pub msix_table: u64,
}

pub struct Driver {
    pub memory: GuestMemory,
    pub function: Arc<VirtioPci>,
    pub interrupts: Arc<Interrupts>,
    pub capabilities: Capabilities,
    pub rings: Vec<Ring>,
}

impl Driver {
    /// Finds the device; does not touch its status yet.
    pub fn probe(device: impl VirtioDevice + 'static) -> Self {
        let ranges = [
            (GuestAddress(0), LOW_END as usize),
            (GuestAddress(HIGH_START), (HIGH_END - HIGH_START) as usize),
        ];
        let memory = GuestMemory::from_ranges(&ranges).unwrap();
        let interrupts = Arc::new(Interrupts::default());
        let router = Arc::new(Router(Arc::clone(&interrupts)));
        let function = VirtioPci::new(Box::new(device), memory.clone(), router).unwrap();
        function.config_write(0x10, &0xc000_0000u32.to_le_bytes());
        function.config_write(0x04, &6u16.to_le_bytes());
        let capabilities = walk_capabilities(&*function);
        Self {
            memory,
            function,
            interrupts,
            capabilities,
            rings: Vec::new(),
        }
    }

    /// Probes and starts with all features but EVENT_IDX, and rings of 16.
    pub fn start(device: impl VirtioDevice + 'static) -> Self {
        let mut driver = Self::probe(device);
        driver.initialise(!EVENT_IDX, 16);
        driver
    }

    /// From reset to DRIVER_OK, with the offered features that are in `wanted`.
    pub fn initialise(&mut self, wanted: u64, ring_size: u16) {
        self.negotiate(wanted);
        self.enable_msix();
        self.rings = (0..self.common_u16(0x12))
            .map(|queue| Ring::new(self, queue, ring_size))
            .collect();
        for ring in &self.rings {
            ring.enable(self);
        }
        self.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    }

    pub fn negotiate(&self, wanted: u64) {
        self.set_status(0);
        assert_eq!(self.status(), 0);
        self.set_status(ACKNOWLEDGE);
        self.set_status(ACKNOWLEDGE | DRIVER);
        let features = self.offered() & wanted;
        for window in 0..2u32 {
            self.common_write(0x08, &window.to_le_bytes());
            self.common_write(0x0c, &((features >> (32 * window)) as u32).to_le_bytes());
        }
        self.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
        assert_eq!(self.status(), ACKNOWLEDGE | DRIVER | FEATURES_OK);
    }

    pub fn offered(&self) -> u64 {
        (0..2u32).fold(0, |features, window| {
            self.common_write(0x00, &window.to_le_bytes());
            features | u64::from(self.common_u32(0x04)) << (32 * window)
        })
    }

    fn enable_msix(&self) {
        let vectors = self.common_u16(0x12) + 1;
        for vector in 0..vectors {
            let entry = self.capabilities.msix_table + 16 * u64::from(vector);
            self.function.bar_write(0, entry, &0xfee0_0000u64.to_le_bytes());
            self.function
                .bar_write(0, entry + 8, &u32::from(vector).to_le_bytes());
            self.function.bar_write(0, entry + 12, &0u32.to_le_bytes());
        }
        self.function
            .config_write(self.capabilities.msix + 2, &0x8000u16.to_le_bytes());
        self.common_write(0x10, &0u16.to_le_bytes());
        assert_eq!(self.common_u16(0x10), 0);
    }

    pub fn ring(&self, queue: usize) -> &Ring {
        &self.rings[queue]
    }

    pub fn status(&self) -> u8 {
        let mut data = [0];
        self.common_read(0x14, &mut data);
        data[0]
    }

    pub fn set_status(&self, status: u8) {
        self.common_write(0x14, &[status]);
    }

    pub fn common_u16(&self, offset: u64) -> u16 {
        let mut data = [0; 2];
        self.common_read(offset, &mut data);
        u16::from_le_bytes(data)
    }

    pub fn common_u32(&self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.common_read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    pub fn common_read(&self, offset: u64, data: &mut [u8]) {
        self.function
            .bar_read(0, self.capabilities.structures[&1].0 + offset, data);
    }

    pub fn common_write(&self, offset: u64, data: &[u8]) {
        self.function
            .bar_write(0, self.capabilities.structures[&1].0 + offset, data);
    }

    pub fn device_config(&self, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        for (offset, byte) in (0..).zip(data.chunks_mut(1)) {
            self.function
                .bar_read(0, self.capabilities.structures[&4].0 + offset, byte);
        }
        data
    }

    pub fn device_config_write(&self, offset: u64, data: &[u8]) {
        self.function
            .bar_write(0, self.capabilities.structures[&4].0 + offset, data);
    }

    pub fn wait_needs_reset(&self) {
        self.interrupts
            .wait_until("NEEDS_RESET", || self.status() & NEEDS_RESET != 0);
        self.interrupts
            .wait_until("a configuration interrupt", || self.interrupts.count(0) > 0);
    }
}

fn walk_capabilities(function: &dyn PciFunction) -> Capabilities {
    let byte = |offset: u16| {
        let mut data = [0];
        function.config_read(offset, &mut data);
        data[0]
    };
    let word = |offset: u16| {
        let mut data = [0; 4];
        function.config_read(offset, &mut data);
        u32::from_le_bytes(data)
    };
    let mut found = Capabilities::default();
    let mut at = u16::from(byte(0x34));
    while at != 0 {
        match byte(at) {
            0x09 => {
                let kind = byte(at + 3);
                found
                    .structures
                    .insert(kind, (word(at + 8).into(), word(at + 12).into()));
                match kind {
                    2 => found.notify_off_multiplier = word(at + 16).into(),
                    5 => found.pci_cfg = at,
                    _ => {}
                }
            }
            0x11 => {
                found.msix = at;
                found.msix_table = u64::from(word(at + 4) & !7);
            }
            id => panic!("unknown capability {id:#x}"),
        }
        at = byte(at + 1).into();
    }
    found
}

/// A split virtqueue as its driver sees it.
pub struct Ring {
    memory: GuestMemory,
    interrupts: Arc<Interrupts>,
    queue: u16,
    pub size: u16,
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
}

impl Ring {
    pub fn new(driver: &Driver, queue: u16, size: u16) -> Self {
        let base = 0x1_0000 * (u64::from(queue) + 1);
        let ring = Self {
            memory: driver.memory.clone(),
            interrupts: Arc::clone(&driver.interrupts),
            queue,
            size,
            descriptors: base,
            available: base + 0x4000,
            used: base + 0x8000,
        };
        ring.memory.write_slice(&[0; 0xc000], GuestAddress(base)).unwrap();
        ring
    }

    /// The same ring, as a clone of the machine has it.
    pub fn of(&self, clone: &Driver) -> Self {
        Self {
            memory: clone.memory.clone(),
            interrupts: Arc::clone(&clone.interrupts),
            ..*self
        }
    }

    /// Writes the queue's registers, and enables it.
    pub fn enable(&self, driver: &Driver) {
        driver.common_write(0x16, &self.queue.to_le_bytes());
        driver.common_write(0x18, &self.size.to_le_bytes());
        driver.common_write(0x1a, &(self.queue + 1).to_le_bytes());
        for (offset, address) in [
            (0x20, self.descriptors),
            (0x28, self.available),
            (0x30, self.used),
        ] {
            driver.common_write(offset, &(address as u32).to_le_bytes());
            driver.common_write(offset + 4, &((address >> 32) as u32).to_le_bytes());
        }
        driver.common_write(0x1c, &1u16.to_le_bytes());
    }

    pub fn is_enabled(&self, driver: &Driver) -> bool {
        driver.common_write(0x16, &self.queue.to_le_bytes());
        driver.common_u16(0x1c) == 1
    }

    pub fn descriptor(&self, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        self.table_entry(self.descriptors, index, address, len, flags, next);
    }

    /// Also for indirect tables.
    pub fn table_entry(&self, table: u64, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        let mut bytes = address.to_le_bytes().to_vec();
        bytes.extend(len.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        self.memory
            .write_slice(&bytes, GuestAddress(table + 16 * u64::from(index)))
            .unwrap();
    }

    /// A well-linked chain from descriptor `first` on: (address, length, writable).
    pub fn chain(&self, first: u16, buffers: &[(u64, u32, bool)]) {
        for (index, &(address, len, writable)) in (first..).zip(buffers) {
            let last = index == first + buffers.len() as u16 - 1;
            let flags = if writable { WRITE } else { 0 } | if last { 0 } else { NEXT };
            self.descriptor(index, address, len, flags, index + 1);
        }
    }

    /// Makes the chain at `head` available.
    pub fn offer(&self, head: u16) {
        self.offer_all(&[head]);
    }

    /// Makes these chains available at once: a device that looks sees none of them or all.
    pub fn offer_all(&self, heads: &[u16]) {
        let mut index = self.u16(self.available + 2);
        for &head in heads {
            self.set_u16(self.available + 4 + 2 * u64::from(index % self.size), head);
            index = index.wrapping_add(1);
        }
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        self.set_u16(self.available + 2, index);
    }

    pub fn kick(&self, driver: &Driver) {
        let offset = driver.capabilities.structures[&2].0;
        let step = driver.capabilities.notify_off_multiplier * u64::from(self.queue);
        driver
            .function
            .bar_write(0, offset + step, &self.queue.to_le_bytes());
    }

    pub fn used_index(&self) -> u16 {
        self.u16(self.used + 2)
    }

    /// Waits for interrupts until `count` chains were used since the queue was made.
    pub fn wait_used(&self, count: u16) {
        let what = format!("queue {}: {count} chains used", self.queue);
        self.interrupts.wait_until(&what, || self.used_index() == count);
    }

    /// Head and length of the used element that came `nth`.
    pub fn used_element(&self, nth: u16) -> (u32, u32) {
        let at = self.used + 4 + 8 * u64::from(nth % self.size);
        let element: u64 = self.memory.read_obj(GuestAddress(at)).unwrap();
        (element as u32, (element >> 32) as u32)
    }

    /// `used_event`, behind the available ring.
    pub fn set_used_event(&self, value: u16) {
        self.set_u16(self.available + 4 + 2 * u64::from(self.size), value);
    }

    pub fn u16(&self, address: u64) -> u16 {
        self.memory
            .load(GuestAddress(address), std::sync::atomic::Ordering::Acquire)
            .unwrap()
    }

    pub fn set_u16(&self, address: u64, value: u16) {
        self.memory
            .store(value, GuestAddress(address), std::sync::atomic::Ordering::Release)
            .unwrap();
    }
}

/// A broken chain or ring, and how to make it at descriptor 0 of a ring.
pub type Breakage = (&'static str, fn(&Ring));

/// What a hostile driver can do to any queue. Those that depend on a device's requests come with its tests.
pub const BREAKAGES: &[Breakage] = &[
    ("a chain that loops", |ring| {
        ring.descriptor(0, DATA, 16, NEXT, 1);
        ring.descriptor(1, DATA, 16, NEXT, 0);
        ring.offer(0);
    }),
    ("a descriptor that is its own next", |ring| {
        ring.descriptor(0, DATA, 16, WRITE | NEXT, 0);
        ring.offer(0);
    }),
    ("a head beyond the table", |ring| ring.offer(ring.size)),
    ("a next beyond the table", |ring| {
        ring.descriptor(0, DATA, 16, NEXT, 0xffff);
        ring.offer(0);
    }),
    ("a buffer in the hole", |ring| {
        ring.descriptor(0, LOW_END, 16, WRITE, 0);
        ring.offer(0);
    }),
    ("a buffer that runs into the hole", |ring| {
        ring.descriptor(0, LOW_END - 8, 16, WRITE, 0);
        ring.offer(0);
    }),
    ("a buffer beyond memory", |ring| {
        ring.descriptor(0, HIGH_END - 1, 2, WRITE, 0);
        ring.offer(0);
    }),
    ("a buffer at the end of the address space", |ring| {
        ring.descriptor(0, u64::MAX - 3, 16, WRITE, 0);
        ring.offer(0);
    }),
    ("a huge buffer", |ring| {
        ring.descriptor(0, DATA, u32::MAX, WRITE, 0);
        ring.offer(0);
    }),
    ("an empty buffer", |ring| {
        ring.descriptor(0, DATA, 0, WRITE, 0);
        ring.offer(0);
    }),
    ("a readable buffer behind a writable one", |ring| {
        ring.descriptor(0, DATA, 64, WRITE | NEXT, 1);
        ring.descriptor(1, DATA + 64, 64, 0, 0);
        ring.offer(0);
    }),
    ("an index that jumped", |ring| {
        let index = ring.u16(ring.available + 2);
        ring.set_u16(ring.available + 2, index.wrapping_add(ring.size + 1));
    }),
    ("an indirect table in the hole", |ring| {
        ring.descriptor(0, LOW_END, 32, INDIRECT, 0);
        ring.offer(0);
    }),
    ("an indirect table of no whole descriptors", |ring| {
        ring.descriptor(0, DATA, 17, INDIRECT, 0);
        ring.offer(0);
    }),
    ("an empty indirect table", |ring| {
        ring.descriptor(0, DATA, 0, INDIRECT, 0);
        ring.offer(0);
    }),
    ("an indirect table in an indirect table", |ring| {
        ring.table_entry(DATA, 0, DATA, 16, INDIRECT, 0);
        ring.descriptor(0, DATA, 16, INDIRECT, 0);
        ring.offer(0);
    }),
    ("an indirect chain that is too long", |ring| {
        for index in 0..1000 {
            ring.table_entry(DATA, index, DATA + 0x1_0000, 1, NEXT, index + 1);
        }
        ring.table_entry(DATA, 1000, DATA + 0x1_0000, 1, 0, 0);
        ring.descriptor(0, DATA, 1001 * 16, INDIRECT, 0);
        ring.offer(0);
    }),
];
