//! ACPI's static tables: where PCI's configuration space is, and how the machine powers off.

use crate::cpu::{self, read};

const BIOS_AREA: core::ops::Range<u64> = 0xe_0000..0x10_0000;
const RSDP_SIGNATURE: u64 = u64::from_le_bytes(*b"RSD PTR ");
const MCFG: u32 = u32::from_le_bytes(*b"MCFG");
const FADT: u32 = u32::from_le_bytes(*b"FACP");

const RSDP_RSDT: u64 = 16;
const RSDP_XSDT: u64 = 24;
const HEADER_LEN: u64 = 36;
const TABLE_LENGTH: u64 = 4;
const MCFG_FIRST_BASE: u64 = 44;
/// The address in the FADT's generic address structure of the sleep control register.
const FADT_SLEEP_CONTROL: u64 = 244 + 4;
const FADT_WITH_SLEEP_CONTROL: u32 = 268;
/// Sleep type 5, which means S5 in our DSDT, with the enable bit.
const SLEEP_S5: u8 = 5 << 2 | 1 << 5;

pub struct Tables {
    /// Configuration space of PCI segment 0, bus 0.
    pub ecam: Option<u64>,
    sleep_control: Option<u16>,
}

impl Tables {
    /// `rsdp` is 0 where the loader does not say it.
    pub fn find(rsdp: u64) -> Option<Self> {
        let rsdp = match rsdp {
            0 => BIOS_AREA.step_by(16).find(|&at| read::<u64>(at) == RSDP_SIGNATURE)?,
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
                .map(|at| if entry_size == 4 { read::<u32>(at).into() } else { read::<u64>(at) })
                .find(|&table| read::<u32>(table) == signature)
        };
        Some(Self {
            ecam: table(MCFG).map(|mcfg| read(mcfg + MCFG_FIRST_BASE)),
            sleep_control: table(FADT)
                .filter(|&fadt| read::<u32>(fadt + TABLE_LENGTH) >= FADT_WITH_SLEEP_CONTROL)
                .map(|fadt| read::<u64>(fadt + FADT_SLEEP_CONTROL) as u16)
                .filter(|&port| port != 0),
        })
    }

    /// Machines without a sleep control register are reset, which ends those that we know.
    pub fn power_off(&self) -> ! {
        if let Some(port) = self.sleep_control {
            cpu::port_write(port, &[SLEEP_S5]);
        }
        cpu::reset()
    }
}
