use proptest::prelude::*;

use super::*;
use crate::memory::LOW_RAM_END;

/// A little ELF: one segment of `data` at `address`, entered at `entry`.
fn elf(address: u64, entry: u64, data: &[u8], memory_size: u64) -> Vec<u8> {
    let mut file = Vec::new();
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    file.extend(2_u16.to_le_bytes());
    file.extend(62_u16.to_le_bytes());
    file.extend(1_u32.to_le_bytes());
    file.extend(entry.to_le_bytes());
    file.extend(64_u64.to_le_bytes());
    file.extend(0_u64.to_le_bytes());
    file.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1_u32.to_le_bytes());
    file.extend(7_u32.to_le_bytes());
    for word in [120, address, address, data.len() as u64, memory_size, 4096] {
        file.extend(word.to_le_bytes());
    }
    file.extend(data);
    file
}

fn place_all(
    kernel: Vec<u8>,
    initrd: Option<&[u8]>,
    cmdline: &str,
    mib: u64,
) -> (Result<Entry, BootError>, GuestMemory) {
    let layout = Layout::new(mib * MIB);
    let memory = layout.map().unwrap();
    let initrd = initrd.map(|bytes| (bytes, bytes.len() as u64));
    let entry = place(Cursor::new(kernel), initrd, cmdline, &layout, &memory);
    (entry, memory)
}

#[test]
fn kernel_initrd_and_parameters_are_where_linux_looks() {
    let kernel = elf(0x100_0000, 0x100_0000, b"kernel", 0x2000);
    let (entry, memory) = place_all(kernel, Some(b"initrd"), "console=ttyS0", 64);
    let entry = entry.unwrap();
    assert_eq!(entry.address, 0x100_0000);
    let read = |address: u64, len: usize| {
        let mut bytes = vec![0; len];
        memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    };
    assert_eq!(read(0x100_0000, 6), b"kernel");
    let params = read(entry.boot_params, 4096);
    assert_eq!(params[0x1fe..0x200], [0x55, 0xaa]);
    assert_eq!(&params[0x202..0x206], b"HdrS");
    let word = |at: usize| u32::from_le_bytes(params[at..at + 4].try_into().unwrap());
    assert_eq!(word(0x21c), 6);
    assert_eq!(read(u64::from(word(0x218)), 6), b"initrd");
    assert_eq!(read(u64::from(word(0x228)), 14), b"console=ttyS0\0");
}

#[test]
fn what_does_not_fit_is_refused() {
    let kernel = || elf(0x100_0000, 0x100_0000, b"k", 0x2000);
    let refused = |kernel, initrd, cmdline: &str| place_all(kernel, initrd, cmdline, 32).0.unwrap_err();
    let low = elf(0x9000, 0x9000, b"k", 0x1000);
    assert!(matches!(refused(low, None, ""), BootError::Load(_)));
    let high = elf(64 * MIB, 64 * MIB, b"k", 0x1000);
    assert!(matches!(refused(high, None, ""), BootError::Load(_)));
    let wide = elf(0x100_0000, 0x100_0000, b"k", 64 * MIB);
    assert!(matches!(
        refused(wide, None, ""),
        BootError::KernelTooLarge { .. }
    ));
    let initrd = vec![0; 20 << 20];
    assert!(matches!(
        refused(kernel(), Some(&initrd), ""),
        BootError::InitrdTooLarge { .. }
    ));
    assert!(matches!(
        refused(kernel(), None, &"x".repeat(2048)),
        BootError::CommandLineTooLong(2048)
    ));
}

proptest! {
    #[test]
    fn the_memory_map_is_ascending_and_tells_all_ram(mib in 32_u64..64 * 1024) {
        let map = params::memory_map(&Layout::new(mib * MIB));
        for pair in map.windows(2) {
            prop_assert!(pair[0].0 + pair[0].1 <= pair[1].0);
        }
        let ram: u64 = map.iter().filter(|entry| entry.2 == 1).map(|entry| entry.1).sum();
        prop_assert_eq!(ram, mib * MIB - (MIB - 0x9_fc00));
    }

    #[test]
    fn initrds_lie_between_kernel_and_limit(size in 0..LOW_RAM_END, kernel_end in MIB..LOW_RAM_END,
                                            mib in 32_u64..4096) {
        let ram = Layout::new(mib * MIB).low_ram_end();
        if let Ok(address) = initrd_address(size, kernel_end, ram) {
            prop_assert!(address >= kernel_end && address + size <= ram.min(INITRD_LIMIT));
            prop_assert_eq!(address % PAGE, 0);
        }
    }

    /// Any bytes as a kernel: an error or an entry, never a panic.
    #[test]
    fn hostile_kernels_do_not_panic(mut garbage in prop::collection::vec(any::<u8>(), 0..256),
                                    header in any::<bool>()) {
        if header {
            let mut kernel = elf(0x100_0000, 0x100_0000, b"k", 0x1000);
            for (byte, noise) in kernel[24..].iter_mut().zip(&garbage) {
                if noise & 7 == 0 { *byte = *noise; }
            }
            garbage = kernel;
        }
        let _ = place_all(garbage, None, "", 32);
    }
}
