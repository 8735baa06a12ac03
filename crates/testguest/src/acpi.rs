//! ACPI's static tables: where PCI's configuration space is, and how the machine powers off.

use crate::cpu::{self, read, write};

const BIOS_AREA: core::ops::Range<u64> = 0xe_0000..0x10_0000;
const RSDP_SIGNATURE: u64 = u64::from_le_bytes(*b"RSD PTR ");
const MCFG: u32 = u32::from_le_bytes(*b"MCFG");
const FADT: u32 = u32::from_le_bytes(*b"FACP");

const RSDP_RSDT: u64 = 16;
const RSDP_XSDT: u64 = 24;
const HEADER_LEN: u64 = 36;
const TABLE_LENGTH: u64 = 4;
const MCFG_FIRST_BASE: u64 = 44;
/// The generic address structure of the sleep control register.
const FADT_SLEEP_CONTROL: u64 = 244;
const GENERIC_ADDRESS: u64 = 4;
const IN_MEMORY: u8 = 0;
const FADT_WITH_SLEEP_CONTROL: u32 = 268;
/// QEMU's microvm has no MCFG and says this in its DSDT only.
const USUAL_ECAM: u64 = 0xe000_0000;
/// Sleep type 5, which means S5 in the DSDTs that we know, with the enable bit.
const SLEEP_S5: u8 = 5 << 2 | 1 << 5;

pub struct Tables {
    /// Configuration space of PCI segment 0, bus 0.
    pub ecam: u64,
    sleep_control: Option<SleepControl>,
}

#[derive(Clone, Copy)]
enum SleepControl {
    Memory(u64),
    Port(u16),
}

impl Tables {
    /// `rsdp` is 0 where the loader does not say it.
    pub fn find(rsdp: u64) -> Option<Self> {
        let rsdp = match rsdp {
            0 => BIOS_AREA
                .step_by(16)
                .find(|&at| read::<u64>(at) == RSDP_SIGNATURE)?,
            known => known,
        };
        let (root, entry_size) = match read(rsdp + RSDP_XSDT) {
            0 => (u64::from(read::<u32>(rsdp + RSDP_RSDT)), 4),
            xsdt => (xsdt, 8),
        };
        let entries = (u64::from(read::<u32>(root + TABLE_LENGTH)) - HEADER_LEN) / entry_size;
        let table = |signature: u32| {
            (0..entries)
                .map(|entry| root + HEADER_LEN + entry * entry_size)
                .map(|at| {
                    if entry_size == 4 {
                        read::<u32>(at).into()
                    } else {
                        read::<u64>(at)
                    }
                })
                .find(|&table| read::<u32>(table) == signature)
        };
        Some(Self {
            ecam: table(MCFG).map_or(USUAL_ECAM, |mcfg| read(mcfg + MCFG_FIRST_BASE)),
            sleep_control: table(FADT)
                .filter(|&fadt| read::<u32>(fadt + TABLE_LENGTH) >= FADT_WITH_SLEEP_CONTROL)
                .and_then(|fadt| SleepControl::at(fadt + FADT_SLEEP_CONTROL)),
        })
    }

    /// Machines without a sleep control register are reset, which ends those that we know.
    pub fn power_off(&self) -> ! {
        match self.sleep_control {
            Some(SleepControl::Memory(address)) => write(address, SLEEP_S5),
            Some(SleepControl::Port(port)) => cpu::port_write(port, &[SLEEP_S5]),
            None => {}
        }
        cpu::reset()
    }
}

impl SleepControl {
    /// From a generic address structure; zeroes are no register.
    fn at(structure: u64) -> Option<Self> {
        let address: u64 = read(structure + GENERIC_ADDRESS);
        let in_memory = read::<u8>(structure) == IN_MEMORY;
        (address != 0).then_some(if in_memory {
            Self::Memory(address)
        } else {
            Self::Port(address as u16)
        })
    }
}
