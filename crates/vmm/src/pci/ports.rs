//! PCI's configuration mechanism #1: an address port and a window of four data ports. PCI Local Bus 3.0, section
//! 3.2.2.3.2.
//!
//! Firmware uses it. Machines without firmware do not have it: Linux would prefer it to the ECAM, at two exits for each
//! access in place of one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::root::PciRoot;

/// The address register, which takes 32-bit accesses only.
pub const ADDRESS_PORT: u16 = 0xcf8;
pub const DATA_PORT: u16 = 0xcfc;
pub const LAST_PORT: u16 = DATA_PORT + 3;

const ENABLE: u32 = 1 << 31;
const BUS: u32 = 0x00ff_0000;
/// Device and function.
const FUNCTION: u32 = 0x0000_ff00;
const REGISTER: u32 = 0x0000_00fc;
/// ECAM leaves 4 KiB to a function.
const ECAM_SHIFT: u32 = 4;

pub struct ConfigPorts {
    root: Arc<PciRoot>,
    address: AtomicU32,
}

impl ConfigPorts {
    /// `address` is what the guest wrote into the address register.
    #[must_use]
    pub fn new(root: Arc<PciRoot>, address: u32) -> Self {
        Self {
            root,
            address: AtomicU32::new(address),
        }
    }

    #[must_use]
    pub fn address(&self) -> u32 {
        self.address.load(Ordering::Relaxed)
    }

    /// Nobody there: all ones.
    pub fn read(&self, port: u16, data: &mut [u8]) {
        data.fill(0xff);
        if port == ADDRESS_PORT
            && let [_, _, _, _] = data
        {
            data.copy_from_slice(&self.address().to_le_bytes());
        } else if let Some(offset) = self.offset(port, data.len()) {
            self.root.config_read(offset, data);
        }
    }

    pub fn write(&self, port: u16, data: &[u8]) {
        if port == ADDRESS_PORT
            && let Ok(address) = data.try_into()
        {
            self.address.store(u32::from_le_bytes(address), Ordering::Relaxed);
        } else if let Some(offset) = self.offset(port, data.len()) {
            self.root.config_write(offset, data);
        }
    }

    /// Where the access is in the ECAM, if it is an aligned one to an enabled register on bus 0.
    fn offset(&self, port: u16, len: usize) -> Option<u32> {
        let address = self.address();
        let byte = port.checked_sub(DATA_PORT)?;
        let aligned = matches!(len, 1 | 2 | 4) && usize::from(byte) % len == 0;
        let here = address & ENABLE != 0 && address & BUS == 0;
        (aligned && here).then(|| (address & FUNCTION) << ECAM_SHIFT | address & REGISTER | u32::from(byte))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Events, Probe};
    use super::*;
    use crate::memory::GIB;
    use crate::pci::root::HostBridge;

    fn ports() -> ConfigPorts {
        let root = PciRoot::new(
            Arc::new(Events::default()),
            (64 * GIB, 64 * GIB),
            HostBridge::FIRMWARE,
        );
        root.insert(3, Probe::new()).unwrap();
        ConfigPorts::new(Arc::new(root), 0)
    }

    fn read<const N: usize>(ports: &ConfigPorts, port: u16) -> [u8; N] {
        let mut data = [0; N];
        ports.read(port, &mut data);
        data
    }

    #[test]
    fn the_window_shows_the_addressed_register() {
        let ports = ports();
        assert_eq!(read::<4>(&ports, DATA_PORT), [0xff; 4], "not enabled");
        ports.write(ADDRESS_PORT, &0x8000_0000_u32.to_le_bytes());
        assert_eq!(read::<4>(&ports, ADDRESS_PORT), 0x8000_0000_u32.to_le_bytes());
        assert_eq!(read::<4>(&ports, DATA_PORT), 0x0d57_8086_u32.to_le_bytes());
        assert_eq!(read::<2>(&ports, DATA_PORT + 2), 0x0d57_u16.to_le_bytes());
        assert_eq!(read::<1>(&ports, DATA_PORT + 3), [0x0d]);
        // The cache line size is any function's to write.
        ports.write(ADDRESS_PORT, &(0x8000_0000_u32 | 3 << 11 | 0x0c).to_le_bytes());
        ports.write(DATA_PORT, &[0x10]);
        let mut seen = [0];
        ports.root.config_read(3 << 15 | 0x0c, &mut seen);
        assert_eq!(seen, read::<1>(&ports, DATA_PORT));
    }

    #[test]
    fn what_is_unaligned_or_elsewhere_reads_as_all_ones() {
        let ports = ports();
        ports.write(ADDRESS_PORT, &0x8000_0000_u32.to_le_bytes());
        assert_eq!(read::<2>(&ports, DATA_PORT + 1), [0xff; 2]);
        assert_eq!(read::<4>(&ports, DATA_PORT + 2), [0xff; 4]);
        assert_eq!(read::<8>(&ports, DATA_PORT), [0xff; 8]);
        // A byte into the address register is no address.
        ports.write(ADDRESS_PORT + 1, &[6]);
        assert_eq!(ports.address(), 0x8000_0000);
        for elsewhere in [1_u32 << 16, 1 << 8, 9 << 11] {
            ports.write(ADDRESS_PORT, &(0x8000_0000 | elsewhere).to_le_bytes());
            assert_eq!(read::<4>(&ports, DATA_PORT), [0xff; 4], "{elsewhere:#x}");
        }
    }
}
