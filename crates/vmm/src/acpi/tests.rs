use super::*;
use crate::memory::MIB;

fn read(memory: &GuestMemory, address: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
    bytes
}

fn table(memory: &GuestMemory, address: u64) -> Vec<u8> {
    let len = u32::from_le_bytes(read(memory, address + 4, 4).try_into().unwrap());
    let table = read(memory, address, len as usize);
    let sum = table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    assert_eq!(sum, 0, "checksum of {}", String::from_utf8_lossy(&table[..4]));
    table
}

fn address(table: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(table[at..at + 8].try_into().unwrap())
}

/// From the RSDP, as a guest walks it: signatures and checksums.
#[test]
fn tables_are_chained_and_checked() {
    for vcpus in [1, 32] {
        let layout = Layout::new(64 * MIB);
        let memory = layout.map().unwrap();
        write(&memory, &layout, vcpus, vcpus > 1).unwrap();
        let rsdp = read(&memory, RSDP_ADDRESS, 36);
        assert_eq!(&rsdp[..8], b"RSD PTR ");
        let xsdt = table(&memory, address(&rsdp, 24));
        let tables: Vec<_> = (36..xsdt.len())
            .step_by(8)
            .map(|at| table(&memory, address(&xsdt, at)))
            .collect();
        let names: Vec<_> = tables.iter().map(|table| &table[..4]).collect();
        assert_eq!(names, [b"FACP", b"APIC", b"MCFG"]);
        let dsdt = table(&memory, address(&tables[0], 140));
        assert_eq!(&dsdt[..4], b"DSDT");
        assert_eq!(tables[1].len(), 44 + 8 * usize::from(vcpus) + 12);
        if let Ok(dir) = std::env::var("HEARTH_ACPI_DUMP") {
            std::fs::write(format!("{dir}/dsdt.aml"), dsdt).unwrap();
            std::fs::write(format!("{dir}/facp.aml"), &tables[0]).unwrap();
        }
    }
}
