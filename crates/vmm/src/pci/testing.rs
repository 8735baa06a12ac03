//! Functions and doorbells for tests: no KVM, no device.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::config::ConfigSpace;
use super::{Bar, Decoding, Doorbell, IoEvents, PciFunction};

/// The BARs of a [`Probe`], as (index, bytes).
pub(super) const BARS: [(u8, u64); 2] = [(0, 0x1000), (2, 0x10_0000)];
/// Where in BAR 2 its doorbell is.
pub(super) const BELL: u64 = 0x40;

/// The addresses that are registered.
#[derive(Default)]
pub(crate) struct Events(pub(super) Mutex<BTreeSet<u64>>);

impl IoEvents for Events {
    fn register(&self, address: u64, _event: &EventFd) -> io::Result<()> {
        assert!(
            self.0.lock().unwrap().insert(address),
            "registered twice: {address:#x}"
        );
        Ok(())
    }

    fn unregister(&self, address: u64, _event: &EventFd) -> io::Result<()> {
        assert!(
            self.0.lock().unwrap().remove(&address),
            "not registered: {address:#x}"
        );
        Ok(())
    }
}

/// Two BARs; BAR 2 has a doorbell. It remembers the last write and counts its resets.
pub(super) struct Probe {
    config: Mutex<ConfigSpace>,
    bell: EventFd,
    pub(super) last: Mutex<Vec<u8>>,
    pub(super) resets: Mutex<u32>,
}

impl Probe {
    pub(super) fn new() -> Arc<Self> {
        let mut config = ConfigSpace::new(0x1af4, 0x1041, 1, 0x02_0000, 0, 0);
        for (index, size) in BARS {
            config.add_bar64(index, size);
        }
        Arc::new(Self {
            config: Mutex::new(config),
            bell: EventFd::new(EFD_NONBLOCK).unwrap(),
            last: Mutex::default(),
            resets: Mutex::default(),
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
        check(bar, offset, data.len());
        data.fill(bar * 16 + offset as u8 % 16);
    }

    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) {
        check(bar, offset, data.len());
        *self.last.lock().unwrap() = data.to_vec();
    }

    fn doorbells(&self) -> Vec<Doorbell> {
        let event = self.bell.try_clone().unwrap();
        vec![Doorbell {
            bar: 2,
            offset: BELL,
            event,
        }]
    }

    fn reset(&self) {
        *self.resets.lock().unwrap() += 1;
        self.config.lock().unwrap().reset();
    }
}

fn check(bar: u8, offset: u64, len: usize) {
    let inside = |&(index, size): &(u8, u64)| index == bar && offset + len as u64 <= size;
    assert!(BARS.iter().any(inside), "{len} bytes at {offset:#x} of BAR {bar}");
}
