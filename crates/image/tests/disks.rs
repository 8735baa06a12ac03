//! Whole disks: made by `mke2fs -d` and the partition table crates, looked into by the public face.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::io::{Cursor, Seek, SeekFrom, Write};

use common::{Entry, MIB, elf, ext4, ext4_with, gpt_disk};
use hearth_image::{BootFiles, BootMode, FindError, Format, ImportError, Road, find_road, inspect, sniff};
use proptest::prelude::*;
use tempfile::TempDir;

fn boot(disk: Vec<u8>) -> Result<BootFiles, FindError> {
    match find_road(Cursor::new(disk))? {
        Road::Direct(files) => Ok(files),
        Road::Firmware { because } => panic!("by firmware: {because}"),
    }
}

fn extlinux_root() -> Option<Vec<u8>> {
    extlinux_root_with("metadata_csum")
}

fn extlinux_root_with(features: &str) -> Option<Vec<u8>> {
    let entries: &[Entry<'_>] = &[
        (
            "boot/extlinux/extlinux.conf",
            b"label linux\n kernel /vmlinuz\n initrd /boot/a,/boot/b\n append root=/dev/vda1\n",
        ),
        ("vmlinuz", b"-> boot/vmlinuz-1"),
        ("boot/vmlinuz-1", &elf()),
        ("boot/a", b"12345"),
        ("boot/b", b"678"),
    ];
    ext4_with(features, entries)
}

/// As after a power cut: the journal asks to be replayed, and has none of the checksums that the reader wants.
#[test]
fn an_unclean_file_system_without_checksums_boots() {
    let Some(mut disk) = extlinux_root_with("^metadata_csum") else {
        return;
    };
    let clean = boot(disk.clone()).unwrap();
    disk[1024 + 0x60] |= 4;
    let unclean = boot(disk).unwrap();
    assert!(clean == unclean);
}

#[test]
fn extlinux_on_a_whole_disk() {
    let Some(disk) = extlinux_root() else { return };
    let files = boot(disk).unwrap();
    assert_eq!(files.kernel_path, "/vmlinuz");
    assert!(files.kernel == elf());
    assert_eq!(files.initrd.unwrap(), b"12345\x00\x00\x00678");
    assert_eq!(files.cmdline, "root=/dev/vda1");
}

#[test]
fn bls_on_a_boot_partition_of_a_gpt() {
    let entry = |version: &str| {
        format!("version {version}\nlinux /vmlinuz-{version}\noptions $kernelopts v={version}\n")
    };
    let filesystems = (
        ext4(&[("etc/fstab", b"")]),
        ext4(&[
            ("loader/entries/f-5.9.conf", entry("5.9").as_bytes()),
            ("loader/entries/f-5.10.conf", entry("5.10").as_bytes()),
            (
                "grub2/grubenv",
                b"# GRUB Environment Block\nkernelopts=root=UUID=1 ro\n",
            ),
            ("vmlinuz-5.9", b"not this"),
            ("vmlinuz-5.10", &elf()),
        ]),
    );
    let (Some(root), Some(boot_fs)) = filesystems else {
        return;
    };
    let files = boot(gpt_disk(&[&[0; 4096], &root, &boot_fs])).unwrap();
    assert_eq!(
        (files.kernel_path.as_str(), files.cmdline.as_str()),
        ("/vmlinuz-5.10", "BOOT_IMAGE=/vmlinuz-5.10 root=UUID=1 ro v=5.10")
    );
    assert_eq!(files.initrd, None);
}

/// One partition, which begins at 1 MiB and whose entry says so many sectors.
fn mbr_disk(fs: &[u8], sectors: u32, size: u64) -> Vec<u8> {
    let mut disk = Cursor::new(vec![0; size as usize]);
    let mut mbr = mbrman::MBR::new_from(&mut disk, 512, [1, 2, 3, 4]).unwrap();
    mbr[1] = mbrman::MBRPartitionEntry {
        boot: mbrman::BOOT_ACTIVE,
        first_chs: mbrman::CHS::empty(),
        sys: 0x83,
        last_chs: mbrman::CHS::empty(),
        starting_lba: 2048,
        sectors: 2048,
    };
    mbr.write_into(&mut disk).unwrap();
    let mut disk = disk.into_inner();
    // Its writer admits no partition that ends behind the disk.
    disk[446 + 12..446 + 16].copy_from_slice(&sectors.to_le_bytes());
    disk[MIB as usize..][..fs.len()].copy_from_slice(fs);
    disk
}

fn grub_root() -> Option<Vec<u8>> {
    let config = b"set default=0\nmenuentry 'A' {\n linux /boot/vmlinuz root=LABEL=x\n}\n";
    ext4(&[("boot/grub/grub.cfg", config), ("boot/vmlinuz", &elf())])
}

#[test]
fn grub_on_a_partition_of_an_mbr() {
    let Some(fs) = grub_root() else { return };
    let end = fs.len() as u64 + MIB;
    // As it should be, and with an end 512 sectors behind the file's.
    for (sectors, size) in [
        (fs.len() as u64 / 512, end + MIB),
        (fs.len() as u64 / 512 + 512, end),
    ] {
        let files = boot(mbr_disk(&fs, sectors as u32, size)).unwrap();
        assert_eq!(
            (files.kernel_path.as_str(), files.cmdline.as_str()),
            ("/boot/vmlinuz", "BOOT_IMAGE=/boot/vmlinuz root=LABEL=x")
        );
    }
}

#[test]
fn a_gpt_for_sectors_of_4096_bytes_is_refused() {
    let mut disk = Cursor::new(vec![0; 16 * MIB as usize]);
    let mut table = gpt::GptConfig::new()
        .writable(true)
        .logical_block_size(gpt::disk::LogicalBlockSize::Lb4096)
        .create_from_device(&mut disk, None)
        .unwrap();
    let kind = gpt::partition_types::LINUX_FS;
    table.add_partition("p", 8 * MIB, kind, 0, None).unwrap();
    table.write().unwrap();
    let error = boot(disk.into_inner()).unwrap_err().to_string();
    assert_eq!(
        error,
        "the disk's partition table is refused: its GPT is for sectors of 4096 bytes, and virtual disks have sectors of \
         512"
    );
}

#[test]
fn a_command_line_that_is_too_long_is_refused() {
    for (len, refused) in [(2047, false), (2048, true), (2100, true)] {
        let config = format!("label l\n kernel /k\n append {}\n", "x".repeat(len));
        let Some(disk) = ext4(&[("extlinux/extlinux.conf", config.as_bytes()), ("k", &elf())]) else {
            return;
        };
        let dir = TempDir::new().unwrap();
        let inspected = inspect(file_of(&dir, &disk))
            .map(drop)
            .map_err(|error| error.to_string());
        let booted = boot(disk).map(drop).map_err(|error| error.to_string());
        assert_eq!((booted.is_err(), inspected.is_err()), (refused, refused), "{len}");
        if let Err(why) = inspected {
            let expected = format!("a command line of {len} bytes, of which the kernel takes 2047");
            assert!(why.contains(&expected), "{why}");
        }
    }
}

/// A FAT file system of 4 MiB.
fn fat(files: &[Entry<'_>]) -> Vec<u8> {
    let mut disk = Cursor::new(vec![0; 4 * MIB as usize]);
    fatfs::format_volume(&mut disk, fatfs::FormatVolumeOptions::new()).unwrap();
    filled(disk.into_inner(), files)
}

/// A FAT file system with files in it.
fn filled(fs: Vec<u8>, files: &[Entry<'_>]) -> Vec<u8> {
    let mut disk = Cursor::new(fs);
    let fs = fatfs::FileSystem::new(&mut disk, fatfs::FsOptions::new()).unwrap();
    for (path, content) in files {
        let mut dir = fs.root_dir();
        let names: Vec<_> = path.split('/').collect();
        for name in &names[..names.len() - 1] {
            dir = dir.create_dir(name).unwrap();
        }
        let mut file = dir.create_file(names[names.len() - 1]).unwrap();
        file.write_all(content).unwrap();
    }
    drop(fs);
    disk.into_inner()
}

/// An EFI system partition and another one.
fn efi_disk(esp: &[u8], root: &[u8]) -> Vec<u8> {
    let mut disk = Cursor::new(vec![0; 4 * MIB as usize + esp.len() + root.len()]);
    let mut table = gpt::GptConfig::new()
        .writable(true)
        .create_from_device(&mut disk, None)
        .unwrap();
    let mut starts = Vec::new();
    for (content, kind) in [
        (esp, gpt::partition_types::EFI),
        (root, gpt::partition_types::LINUX_FS),
    ] {
        let id = table
            .add_partition("p", content.len() as u64, kind, 0, Some(2048))
            .unwrap();
        starts.push(table.partitions()[&id].first_lba as usize * 512);
    }
    table.write().unwrap();
    let mut disk = disk.into_inner();
    for (start, content) in starts.into_iter().zip([esp, root]) {
        disk[start..][..content.len()].copy_from_slice(content);
    }
    disk
}

/// A PE file with GRUB's modules: a header, and the prefix "/grub".
fn grub_image() -> Vec<u8> {
    let mut image = vec![0; 64];
    image[..2].copy_from_slice(b"MZ");
    image[60] = 64;
    image.extend(b"PE\0\0\x64\x86\x01\0");
    image.resize(64 + 24, 0);
    image.extend(b"mods\0\0\0\0");
    image.resize(64 + 24 + 40, 0);
    let mut modules = b"mimg\0\0\0\0".to_vec();
    modules.extend(24_u64.to_le_bytes());
    modules.extend(40_u64.to_le_bytes());
    modules.extend([3, 0, 0, 0, 16, 0, 0, 0]);
    modules.extend(b"/grub\0\0\0");
    image[64 + 24 + 16..][..4].copy_from_slice(&(modules.len() as u32).to_le_bytes());
    image[64 + 24 + 20..][..4].copy_from_slice(&128_u32.to_le_bytes());
    image.extend(modules);
    image
}

#[test]
fn an_efi_loader_decides_the_boot_mode() {
    let Some(root) = grub_root() else { return };
    let dir = TempDir::new().unwrap();
    let info = |esp: &[Entry<'_>], root: &[u8]| inspect(file_of(&dir, &efi_disk(&fat(esp), root))).unwrap();
    let grub = grub_image();
    let stub = b"search -f /boot/vmlinuz --set=root\nconfigfile /boot/grub/grub.cfg\n";

    let both = info(&[("EFI/BOOT/BOOTX64.EFI", &grub), ("grub/grub.cfg", stub)], &root);
    assert_eq!(both.boot_mode, BootMode::UefiPreferred);
    assert!(matches!(both.road, Road::Direct(direct) if direct.kernel_path == "/boot/vmlinuz"));

    let firmware = info(&[("EFI/BOOT/BOOTX64.EFI", &grub)], &root);
    assert_eq!(firmware.boot_mode, BootMode::Uefi);
    let because = firmware.because().unwrap().to_string();
    assert_eq!(
        because,
        "(hd0,gpt1)/grub/grub.cfg: a configuration file that is not there"
    );

    let firmware = info(&[("efi/boot/bootx64.efi", b"other")], &[0; 4096]);
    assert_eq!(firmware.boot_mode, BootMode::Uefi);

    let direct = info(&[("EFI/readme.txt", b"no loader")], &root);
    assert_eq!(direct.boot_mode, BootMode::LegacyBios);
}

/// Alpine's EFI system partition is FAT12 on 512 KiB, Arch's has sectors of 4096 bytes on a disk with sectors of 512.
#[test]
fn efi_system_partitions_of_all_shapes_are_read() {
    let Some(root) = grub_root() else { return };
    let dir = TempDir::new().unwrap();
    let grub = grub_image();
    let stub = b"search -f /boot/vmlinuz --set=root\nconfigfile /boot/grub/grub.cfg\n";
    let files: &[Entry<'_>] = &[("EFI/boot/bootx64.efi", &grub), ("grub/grub.cfg", stub)];
    for (size, options) in [(MIB / 2, ["-F", "12"]), (18 * MIB, ["-S", "4096"])] {
        let Some(tool) = common::tool("mkfs.fat") else {
            return;
        };
        let path = dir.path().join("fat");
        fs::File::create(&path).unwrap().set_len(size).unwrap();
        let made = std::process::Command::new(tool).args(options).arg(&path).output();
        assert!(made.unwrap().status.success());
        let esp = filled(fs::read(&path).unwrap(), files);
        let info = inspect(file_of(&dir, &efi_disk(&esp, &root))).unwrap();
        assert_eq!(info.boot_mode, BootMode::UefiPreferred, "{options:?}: {info:?}");
    }
}

#[test]
fn a_disk_without_a_loader_says_where_it_was_looked_for() {
    let Some(empty) = ext4(&[("etc/hostname", b"x"), ("loop", b"-> loop")]) else {
        return;
    };
    let message = boot(gpt_disk(&[&[9; 4096], &empty])).unwrap_err().to_string();
    assert_eq!(
        message,
        "no boot loader was found on the disk: no EFI system partition with EFI/BOOT/BOOTX64.EFI, and no \
         extlinux.conf, syslinux.cfg, grub.cfg nor loader/entries in partition 1 (no file system that boot loaders \
         read); partition 2 (ext4)"
    );
    assert!(matches!(boot(Vec::new()), Err(FindError::NoLoader(_))));
    assert!(matches!(boot(vec![0; 4096]), Err(FindError::NoLoader(_))));
}

/// Why a disk with one file system is refused.
fn refusal(entries: &[Entry<'_>]) -> Option<String> {
    match boot(ext4(entries)?) {
        Err(FindError::Refused { because }) => Some(because.to_string()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_kernel_for_another_machine_is_refused() {
    let config: Entry<'_> = ("extlinux/extlinux.conf", b"label l\nkernel /k\n");
    let Some(because) = refusal(&[config, ("k", b"MZ, but no kernel")]) else {
        return;
    };
    assert_eq!(because, "/k: the kernel is neither an ELF file nor a bzImage");
}

#[test]
fn links_that_loop_or_leave_are_no_danger() {
    let config: Entry<'_> = ("extlinux/extlinux.conf", b"label l\nkernel /loop\n");
    for target in [
        &b"-> loop"[..],
        b"-> ../../../../../../../etc/passwd",
        b"-> /proc/self/mem",
    ] {
        let Some(because) = refusal(&[config, ("loop", target)]) else {
            return;
        };
        assert!(
            because.contains("/loop") || because.contains("symbolic links"),
            "{because}"
        );
    }
}

fn file_of(dir: &TempDir, content: &[u8]) -> fs::File {
    let path = dir.path().join("disk.raw");
    fs::write(&path, content).unwrap();
    fs::File::open(path).unwrap()
}

#[test]
fn an_import_names_foreign_formats_and_what_to_do() {
    let dir = TempDir::new().unwrap();
    let mut qcow2 = b"QFI\xfb\0\0\0\x03".to_vec();
    qcow2.resize(65536, 0);
    let e = inspect(file_of(&dir, &qcow2)).unwrap_err();
    assert_eq!(
        e.to_string(),
        "the file is a qcow2 image, not a raw disk; convert it first: qemu-img convert -f qcow2 -O raw IN OUT"
    );
    let e = inspect(file_of(&dir, &elf())).unwrap_err();
    assert!(matches!(e, ImportError::Foreign { format: Format::Elf }));
    assert!(matches!(
        inspect(file_of(&dir, b"")),
        Err(ImportError::Empty { len: 0 })
    ));
    let e = inspect(file_of(&dir, &vec![0x55; 1 << 20])).unwrap_err();
    assert!(matches!(e, ImportError::Boot(FindError::NoLoader(_))));
}

#[test]
fn a_good_image_is_described() {
    let Some(mut disk) = extlinux_root() else { return };
    disk.extend([0; 100]);
    let dir = TempDir::new().unwrap();
    let info = inspect(file_of(&dir, &disk)).unwrap();
    assert_eq!((info.size, info.boot_mode), (8 * MIB, BootMode::LegacyBios));
    let Road::Direct(direct) = info.road else {
        panic!("by firmware")
    };
    assert_eq!(
        (direct.kernel_path.as_str(), direct.has_initrd),
        ("/vmlinuz", true)
    );
}

#[test]
fn the_tiny_ami_boots_directly() {
    let Some(path) = std::env::var_os("HEARTH_TINY_AMI") else {
        eprintln!("SKIPPED: the_tiny_ami_boots_directly: HEARTH_TINY_AMI names no image");
        return;
    };
    let Road::Direct(files) = find_road(fs::File::open(path).unwrap()).unwrap() else {
        panic!("by firmware")
    };
    assert!(files.kernel_path.contains("/vmlinuz-"), "{}", files.kernel_path);
    let words: Vec<&str> = files.cmdline.split(' ').collect();
    assert!(
        words.starts_with(&["root=/dev/vda", "rootfstype=ext4", "rw", "console=ttyS0"]),
        "{words:?}"
    );
    // A kernel with its drivers as modules comes with an initrd.
    assert_eq!(files.initrd.is_some(), files.kernel_path.contains("cloud"));
}

#[test]
fn formats_are_recognised_by_their_magic() {
    let sniffed = |at: u64, magic: &[u8]| {
        let mut file = tempfile::tempfile().unwrap();
        file.set_len(MIB).unwrap();
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(magic).unwrap();
        sniff(&mut file).unwrap()
    };
    for (at, magic, format) in [
        (0, &b"KDMV"[..], Format::Vmdk),
        (0, b"vhdxfile", Format::Vhdx),
        (0, b"conectix", Format::Vhd),
        (MIB - 512, b"conectix", Format::Vhd),
        (64, b"\x7f\x10\xda\xbe", Format::Vdi),
        (32769, b"CD001", Format::Iso9660),
        (0, b"\x1f\x8b\x08", Format::Gzip),
        (0, b"\xfd7zXZ\0", Format::Xz),
        (0, b"\x28\xb5\x2f\xfd", Format::Zstd),
        (0x202, b"HdrS", Format::LinuxKernel),
        (510, b"\x55\xaa", Format::Raw),
    ] {
        assert_eq!(sniffed(at, magic), format, "{magic:?}");
    }
    assert_eq!(sniff(&mut Cursor::new(b"QFI\xfb")).unwrap(), Format::Qcow2);
    assert_eq!(sniff(&mut Cursor::new(b"")).unwrap(), Format::Raw);
}

/// A disk, and where it is not zero: damage elsewhere would go unread.
struct Target {
    disk: Vec<u8>,
    live: Vec<usize>,
}

impl Target {
    fn new(disk: Vec<u8>) -> Target {
        let live = (0..disk.len()).filter(|at| disk[*at] != 0).collect();
        Target { disk, live }
    }

    fn damaged(&self, changes: &[(prop::sample::Index, u8)], cut: Option<prop::sample::Index>) -> Vec<u8> {
        let mut disk = self.disk.clone();
        for (at, byte) in changes {
            disk[self.live[at.index(self.live.len())]] = *byte;
        }
        if let Some(cut) = cut {
            disk.truncate(cut.index(disk.len()));
        }
        disk
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn no_damage_makes_it_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..40),
        cut in proptest::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        static DISKS: std::sync::OnceLock<Vec<Target>> = std::sync::OnceLock::new();
        // Without checksums the damage is believed, and goes deeper.
        let disks = DISKS.get_or_init(|| {
            let Some(fs) = extlinux_root() else { return Vec::new() };
            let mut unchecked = fs.clone();
            unchecked[1024 + 0x64 + 1] &= !0x04;
            [gpt_disk(&[&fs]), fs, unchecked].map(Target::new).into()
        });
        for target in disks {
            let disk = target.damaged(&changes, cut);
            prop_assert!(!matches!(boot(disk), Err(FindError::Damaged)), "a parser panicked");
        }
    }

    #[test]
    fn no_noise_makes_it_panic(mut noise in proptest::collection::vec(any::<u8>(), 0..5000), magic in any::<bool>()) {
        if magic && noise.len() > 1100 {
            noise[1080..1082].copy_from_slice(&[0x53, 0xef]);
            noise[510..512].copy_from_slice(&[0x55, 0xaa]);
        }
        let _ = sniff(&mut Cursor::new(&noise));
        prop_assert!(!matches!(boot(noise), Err(FindError::Damaged)), "a parser panicked");
    }
}

/// `HEARTH_BZIMAGE=... cargo nextest run --release -p hearth-image --run-ignored=only --no-capture`
#[test]
#[ignore = "a measurement; wants HEARTH_BZIMAGE"]
fn time_to_find_and_unpack_a_real_kernel() {
    let Some(path) = std::env::var_os("HEARTH_BZIMAGE") else {
        eprintln!("SKIPPED: time_to_find_and_unpack_a_real_kernel: HEARTH_BZIMAGE names no kernel");
        return;
    };
    let packed = fs::read(path).unwrap();
    let config: Entry<'_> = ("extlinux/extlinux.conf", b"label l\nkernel /k\n");
    let Some(disk) = ext4(&[config, ("k", &packed)]) else {
        return;
    };
    let dir = TempDir::new().unwrap();
    let file = file_of(&dir, &disk);
    for _ in 0..10 {
        let start = std::time::Instant::now();
        let Road::Direct(found) = find_road(file.try_clone().unwrap()).unwrap() else {
            panic!("by firmware")
        };
        let all = start.elapsed();
        let start = std::time::Instant::now();
        let elf = hearth_image::kernel::unpack(packed.clone()).unwrap();
        assert!(found.kernel == elf);
        eprintln!(
            "{} -> {} bytes: find_road {all:?}, of it unpack about {:?}",
            packed.len(),
            elf.len(),
            start.elapsed()
        );
    }
}
