use std::io::Write as _;

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

/// [`elf`] with a Xen note that names `entry`, as the firmware's file has it.
fn firmware(address: u64, entry: u32) -> Vec<u8> {
    let mut file = elf(address, address, b"firmware", 0x2000);
    let note = file.len() as u64;
    file[56..58].copy_from_slice(&2_u16.to_le_bytes());
    let mut header = Vec::new();
    header.extend(4_u32.to_le_bytes());
    header.extend(4_u32.to_le_bytes());
    // The second header moves the rest by its own size.
    for word in [note + 56, 0, 0, 20, 20, 4] {
        header.extend(word.to_le_bytes());
    }
    file[72..80].copy_from_slice(&(120_u64 + 56).to_le_bytes());
    file.splice(120..120, header);
    for word in [4_u32, 4, 18] {
        file.extend(word.to_le_bytes());
    }
    file.extend(b"Xen\0");
    file.extend(entry.to_le_bytes());
    file
}

fn load_firmware(bytes: &[u8], mib: u64) -> (Result<Entry, BootError>, GuestMemory) {
    let layout = Layout::new(mib * MIB);
    let memory = layout.map().unwrap();
    let entry = load(&Source::Firmware(Arc::new(file(bytes))), &layout, &memory);
    (entry, memory)
}

fn file(bytes: &[u8]) -> File {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file
}

#[test]
fn firmware_is_entered_at_its_note_and_told_of_memory_and_acpi() {
    let (entry, memory) = load_firmware(&firmware(0x10_0000, 0x4f_ffd0), 5 << 10);
    let Entry::Firmware { address, start_info } = entry.unwrap() else {
        panic!("no firmware's entry");
    };
    assert_eq!(address, 0x4f_ffd0);
    let word = |at: u64| memory.read_obj::<u32>(GuestAddress(at)).unwrap();
    let long = |at: u64| memory.read_obj::<u64>(GuestAddress(at)).unwrap();
    let info = u64::from(start_info);
    assert_eq!((word(info), word(info + 4)), (0x336e_c578, 1));
    assert_eq!(long(info + 32), crate::acpi::RSDP_ADDRESS);
    let (map, entries) = (long(info + 40), word(info + 48));
    let entries = (0..u64::from(entries)).map(|at| map + 24 * at);
    let ram: u64 = entries
        .filter(|&at| word(at + 16) == 1)
        .map(|at| long(at + 8))
        .sum();
    assert_eq!(ram, (5 << 30) - (MIB - 0x9_fc00));
    let mut loaded = [0; 8];
    memory.read_slice(&mut loaded, GuestAddress(0x10_0000)).unwrap();
    assert_eq!(&loaded, b"firmware");
}

#[test]
fn what_is_no_firmware_is_refused() {
    use firmware::FirmwareError;
    let refused = |bytes: &[u8], mib| load_firmware(bytes, mib).0.unwrap_err();
    let plain = elf(0x100_0000, 0x100_0000, b"kernel", 0x2000);
    assert!(matches!(
        refused(&plain, 128),
        BootError::Firmware(FirmwareError::NoEntry)
    ));
    assert!(matches!(
        refused(b"", 128),
        BootError::Firmware(FirmwareError::Size(0))
    ));
    assert!(matches!(refused(b"\x7fELF", 128), BootError::Load(_)));
    let little = refused(&firmware(0x10_0000, 0x10_0000), 32);
    assert!(matches!(little, BootError::Firmware(FirmwareError::LittleMemory)));
}

/// Has an MBR with one partition, an EFI system partition with a loader in it.
fn disk_with_efi_loader() -> Vec<u8> {
    let mut esp = vec![0; 2 << 20];
    let mut image = Cursor::new(&mut esp[..]);
    fatfs::format_volume(&mut image, fatfs::FormatVolumeOptions::new()).unwrap();
    let volume = fatfs::FileSystem::new(image, fatfs::FsOptions::new()).unwrap();
    {
        let root = volume.root_dir();
        root.create_dir("EFI").unwrap();
        root.create_dir("EFI/BOOT").unwrap();
        let mut loader = root.create_file("EFI/BOOT/BOOTX64.EFI").unwrap();
        loader.write_all(b"a loader of another kind").unwrap();
    }
    volume.unmount().unwrap();
    let mut disk = vec![0; 64 * 512];
    disk[446..462].copy_from_slice(&[0, 0, 0, 0, 0xef, 0, 0, 0, 64, 0, 0, 0, 0, 16, 0, 0]);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk.extend(esp);
    disk
}

/// A disk that the direct road does not boot goes by firmware if, and only if, it has an EFI boot loader.
#[test]
fn a_disk_with_an_efi_loader_goes_by_firmware() {
    let boot = |disk: &[u8], with: Option<&[u8]>| {
        let layout = Layout::new(128 * MIB);
        let memory = layout.map().unwrap();
        let source = Source::Disk {
            disk: Arc::new(hearth_block::RawDisk::new(file(disk)).unwrap()),
            firmware: with.map(|bytes| Arc::new(file(bytes))),
        };
        load(&source, &layout, &memory)
    };
    let firmware = firmware(0x10_0000, 0x10_0000);
    let empty = boot(&[0; 1 << 20], Some(&firmware));
    assert!(matches!(empty, Err(BootError::Find(_))), "{empty:?}");
    let disk = disk_with_efi_loader();
    let entry = boot(&disk, Some(&firmware));
    assert!(matches!(entry, Ok(Entry::Firmware { .. })), "{entry:?}");
    let without = boot(&disk, None);
    assert!(matches!(without, Err(BootError::NeedsFirmware(_))), "{without:?}");
}

#[test]
fn cleared_memory_is_zero() {
    let kernel = elf(0x100_0000, 0x100_0000, b"kernel", 0x2000);
    let (_, memory) = place_all(kernel, None, "console=ttyS0", 64);
    clear(&memory).unwrap();
    for address in [0x7000, 0x2_0000, 0x100_0000] {
        assert_eq!(memory.read_obj::<u64>(GuestAddress(address)).unwrap(), 0);
    }
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
    let Entry::Linux { address, boot_params } = entry.unwrap() else {
        panic!("no kernel's entry");
    };
    assert_eq!(address, 0x100_0000);
    let read = |address: u64, len: usize| {
        let mut bytes = vec![0; len];
        memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    };
    assert_eq!(read(0x100_0000, 6), b"kernel");
    let params = read(boot_params, 4096);
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
