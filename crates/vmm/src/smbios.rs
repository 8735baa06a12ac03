//! SMBIOS 3.0: who the machine says it is. What real Nitro instances show, so that stock cloud-init and
//! `ds-identify` recognise EC2: a system UUID that begins with `ec2` and equals the serial number, and
//! `Amazon EC2` as manufacturer and chassis asset tag; the board's asset tag is the instance id.

use uuid::Uuid;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::memory::GuestMemory;

/// Where BIOSes leave the entry point: scanned for on 16-byte boundaries from here.
pub const ENTRY_POINT_ADDRESS: u64 = 0xf_0000;
const TABLE_ADDRESS: u64 = ENTRY_POINT_ADDRESS + 32;

const VENDOR: &str = "Amazon EC2";
const PRODUCT: &str = "hearth";
const BIOS_VERSION: &str = "1.0";
const BIOS_DATE: &str = "10/16/2017";

/// BIOS characteristics: "not supported" list of its own; the extension says virtual machine, UEFI absent.
const CHARACTERISTICS_NOT_LISTED: u64 = 1 << 3;
const EXTENSION_VIRTUAL_MACHINE: u8 = 1 << 4;
const WAKE_UP_POWER_SWITCH: u8 = 6;
const BOARD_IS_MOTHERBOARD: u8 = 0x0a;
const BOARD_HOSTS_OTHERS: u8 = 1;
const CHASSIS_OTHER: u8 = 1;
const STATE_SAFE: u8 = 3;
const STATE_UNKNOWN: u8 = 2;

/// Writes entry point and structures. `uuid` is any spelling of a UUID; one that is none becomes the nil
/// UUID, for its check belongs to whoever took the description in.
///
/// # Errors
/// Guest memory does not reach there.
pub fn write(memory: &GuestMemory, uuid: &str, instance_id: &str) -> Result<(), GuestMemoryError> {
    let table = table(Uuid::parse_str(uuid).unwrap_or_default(), instance_id);
    let mut entry = Vec::new();
    entry.extend(b"_SM3_");
    entry.push(0); // checksum, below
    entry.push(24); // length
    entry.extend([3, 0, 0]); // version 3.0, docrev 0
    entry.push(1); // entry point revision
    entry.push(0);
    entry.extend((table.len() as u32).to_le_bytes());
    entry.extend(TABLE_ADDRESS.to_le_bytes());
    entry[5] = entry.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
    memory.write_slice(&entry, GuestAddress(ENTRY_POINT_ADDRESS))?;
    memory.write_slice(&table, GuestAddress(TABLE_ADDRESS))
}

fn table(uuid: Uuid, instance_id: &str) -> Vec<u8> {
    let mut table = Table::default();
    let serial = uuid.hyphenated().to_string();
    table.add(0, |s| {
        s.string(VENDOR);
        s.string(BIOS_VERSION);
        s.bytes(&0xe800_u16.to_le_bytes()); // starting segment
        s.string(BIOS_DATE);
        s.bytes(&[0]); // 64 KiB of ROM
        s.bytes(&CHARACTERISTICS_NOT_LISTED.to_le_bytes());
        s.bytes(&[0, EXTENSION_VIRTUAL_MACHINE]);
        s.bytes(&[1, 0, 0xff, 0xff]); // BIOS 1.0, no embedded controller
    });
    table.add(1, |s| {
        s.string(VENDOR);
        s.string(PRODUCT);
        s.string(""); // version
        s.string(&serial);
        // Since SMBIOS 2.6 the first three fields are little-endian.
        s.bytes(&uuid.to_bytes_le());
        s.bytes(&[WAKE_UP_POWER_SWITCH]);
        s.string(""); // SKU
        s.string(""); // family
    });
    table.add(2, |s| {
        s.string(VENDOR);
        s.string(""); // product
        s.string(""); // version
        s.string(""); // serial
        s.string(instance_id);
        s.bytes(&[BOARD_HOSTS_OTHERS, 0]);
        s.bytes(&CHASSIS_HANDLE.to_le_bytes());
        s.bytes(&[BOARD_IS_MOTHERBOARD, 0]);
    });
    table.add(CHASSIS_HANDLE as u8, |s| {
        s.string(VENDOR);
        s.bytes(&[CHASSIS_OTHER]);
        s.string(""); // version
        s.string(""); // serial
        s.string(VENDOR);
        s.bytes(&[STATE_SAFE, STATE_SAFE, STATE_SAFE, STATE_UNKNOWN]);
        s.bytes(&[0; 4]); // OEM-defined
        s.bytes(&[0, 1, 0, 0]); // height, one power cord, no contained elements
    });
    table.add(32, |s| s.bytes(&[0; 7])); // boot status: no errors
    table.add(127, |_| {});
    table.bytes
}

/// The handles are the types' numbers, for there is one structure of each.
const CHASSIS_HANDLE: u16 = 3;

#[derive(Default)]
struct Table {
    bytes: Vec<u8>,
}

impl Table {
    /// Formatted area, then its strings, then a NUL; two NULs where there are no strings.
    fn add(&mut self, kind: u8, fill: impl FnOnce(&mut Structure)) {
        let mut structure = Structure::default();
        fill(&mut structure);
        self.bytes.push(kind);
        self.bytes.push(4 + structure.formatted.len() as u8);
        self.bytes.extend(u16::from(kind).to_le_bytes());
        self.bytes.extend(structure.formatted);
        for string in &structure.strings {
            self.bytes.extend(string.bytes().filter(|&byte| byte != 0));
            self.bytes.push(0);
        }
        self.bytes.push(0);
        if structure.strings.is_empty() {
            self.bytes.push(0);
        }
    }
}

#[derive(Default)]
struct Structure {
    formatted: Vec<u8>,
    strings: Vec<String>,
}

impl Structure {
    fn bytes(&mut self, bytes: &[u8]) {
        self.formatted.extend(bytes);
    }

    /// A string's number, counted from 1; the empty string is number 0: "not specified".
    fn string(&mut self, string: &str) {
        if string.is_empty() {
            self.formatted.push(0);
        } else {
            self.strings.push(string.to_owned());
            self.formatted.push(self.strings.len() as u8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Layout, MIB};

    const UUID: &str = "ec2a1b2c-3d4e-5f60-7182-93a4b5c6d7e8";

    #[test]
    fn entry_point_adds_up_and_points_to_the_table() {
        let memory = Layout::new(32 * MIB).map().unwrap();
        write(&memory, UUID, "i-0123456789abcdef0").unwrap();
        let mut area = vec![0; 4096];
        memory
            .read_slice(&mut area, GuestAddress(ENTRY_POINT_ADDRESS))
            .unwrap();
        assert_eq!(&area[..5], b"_SM3_");
        let sum = area[..24].iter().fold(0_u8, |s, b| s.wrapping_add(*b));
        assert_eq!(sum, 0);
        assert_eq!(&area[32..34], [0, 24]);
    }

    #[test]
    fn cloud_init_sees_ec2() {
        let table = table(Uuid::parse_str(UUID).unwrap(), "i-0123456789abcdef0");
        let text = String::from_utf8_lossy(&table);
        assert!(text.contains(&format!("Amazon EC2\0hearth\0{UUID}\0\0")));
        assert!(text.contains("Amazon EC2\0i-0123456789abcdef0\0\0"));
        let system = table.windows(4).position(|w| w == [1, 27, 1, 0]).unwrap();
        assert_eq!(
            table[system + 8..system + 16],
            [0x2c, 0x1b, 0x2a, 0xec, 0x4e, 0x3d, 0x60, 0x5f]
        );
    }

    /// Walks the structures as a parser does and ends at type 127.
    #[test]
    fn structures_are_well_formed() {
        let table = table(Uuid::nil(), "i-1");
        let (mut at, mut kinds) = (0, Vec::new());
        while at < table.len() {
            kinds.push(table[at]);
            at += usize::from(table[at + 1]);
            at += 2 + table[at..].windows(2).position(|w| w == [0, 0]).unwrap();
        }
        assert_eq!(kinds, [0, 1, 2, 3, 32, 127]);
    }
}
