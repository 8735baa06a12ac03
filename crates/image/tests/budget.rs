//! What looking into a hostile disk costs: memory, time and bytes read.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Cursor;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Entry, MIB, elf, fill, mke2fs, tool};
use hearth_image::{BootFiles, FindError, ImportError, ReadSeek, Road, find_road, inspect};
use tempfile::TempDir;

fn find_boot(disk: impl ReadSeek + 'static) -> Result<BootFiles, FindError> {
    match find_road(disk)? {
        Road::Direct(files) => Ok(files),
        Road::Firmware { because } => panic!("by firmware: {because}"),
    }
}

/// More than an inspection may take, on a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(20);

/// The largest amount of memory that this process has had, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

fn lengthen(path: &Path, len: u64) {
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(len)
        .unwrap();
}

/// An extlinux disk whose kernel and initrd are as large as is allowed, and holes but for the kernel's header.
fn sparse_disk(dir: &Path, entries: &[Entry<'_>], initrd: bool) -> Option<Vec<u8>> {
    let mut all: Vec<Entry<'_>> = vec![
        (
            "extlinux/extlinux.conf",
            b"label l\n kernel /kernel\n initrd /initrd\n",
        ),
        ("kernel", b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0"),
    ];
    if initrd {
        all.push(("initrd", b"070701"));
    }
    all.extend(entries);
    let root = fill(dir, &all);
    lengthen(&root.join("kernel"), 256 * MIB);
    if initrd {
        lengthen(&root.join("initrd"), 512 * MIB);
    }
    let image = dir.join("disk.raw");
    mke2fs(&["-O", "^has_journal"], &root, &image, "4M").then(|| fs::read(image).unwrap())
}

#[test]
fn a_sparse_kernel_and_initrd_are_not_loaded_to_be_looked_at() {
    let dir = TempDir::new().unwrap();
    if sparse_disk(dir.path(), &[], true).is_none() {
        return;
    }
    let (before, begin) = (peak(), Instant::now());
    let info = inspect(File::open(dir.path().join("disk.raw")).unwrap()).unwrap();
    let taken = peak() - before;
    eprintln!("{} KiB, {:?}", taken >> 10, begin.elapsed());
    assert!(
        matches!(info.road, Road::Direct(direct) if direct.has_initrd && direct.kernel_path == "/kernel")
    );
    assert!(taken < 32 * MIB, "{taken} bytes");
    assert!(begin.elapsed() < SOON);
}

/// A GPT of so many partitions, each with `fs`; their beginnings are `step` bytes apart.
fn partitioned(fs: &[u8], partitions: u32, step: u64) -> Vec<u8> {
    let mut disk = Cursor::new(vec![
        0;
        fs.len() + (2 * MIB + u64::from(partitions) * step) as usize
    ]);
    let mut table = gpt::GptConfig::new()
        .writable(true)
        .change_partition_count(true)
        .create_from_device(&mut disk, None)
        .unwrap();
    let kind = gpt::partition_types::LINUX_FS;
    let id = table
        .add_partition("p", fs.len() as u64, kind, 0, Some(2048))
        .unwrap();
    let one = table.partitions()[&id].clone();
    let all: BTreeMap<u32, _> = (0..partitions)
        .map(|n| {
            let mut partition = one.clone();
            partition.first_lba += u64::from(n) * step / 512;
            partition.last_lba += u64::from(n) * step / 512;
            (n + 1, partition)
        })
        .collect();
    table.update_partitions(all.clone()).unwrap();
    table.write().unwrap();
    let mut disk = disk.into_inner();
    for partition in all.values() {
        disk[partition.first_lba as usize * 512..][..fs.len()].copy_from_slice(fs);
    }
    disk
}

#[test]
fn partitions_that_overlap_cost_no_more_than_one() {
    let dir = TempDir::new().unwrap();
    let root = fill(dir.path(), &[("etc/hostname", b"x")]);
    let image = dir.path().join("fs");
    if !mke2fs(&["-O", "^has_journal"], &root, &image, "4M") {
        return;
    }
    let disk = partitioned(&fs::read(image).unwrap(), 128, 0);
    let begin = Instant::now();
    let Err(FindError::NoLoader(looked)) = find_boot(Cursor::new(disk)) else {
        panic!("it boots");
    };
    eprintln!("{:?}", begin.elapsed());
    assert!(begin.elapsed() < SOON);
    assert_eq!(looked.len(), 128);
    assert_eq!(looked[0].outcome, "ext4");
    assert_eq!(looked[127].outcome, "overlaps partition 1");
}

#[test]
fn a_configuration_cannot_have_one_file_read_without_end() {
    let dir = TempDir::new().unwrap();
    let config = format!("for i in {}; do source /large; done\n", "x ".repeat(1000));
    let comment = "#".repeat(MIB as usize);
    let files: [Entry<'_>; 2] = [
        ("grub/grub.cfg", config.as_bytes()),
        ("large", comment.as_bytes()),
    ];
    let root = fill(dir.path(), &files);
    let image = dir.path().join("disk.raw");
    if !mke2fs(&["-O", "^has_journal"], &root, &image, "4M") {
        return;
    }
    let begin = Instant::now();
    let error = inspect(File::open(&image).unwrap()).unwrap_err();
    eprintln!("{:?}: {error}", begin.elapsed());
    assert!(matches!(
        error,
        ImportError::Boot(FindError::TooMuch { budget }) if budget == 128 * MIB
    ));
    assert!(error.to_string().contains("e2fsck"));
}

#[test]
fn more_than_128_partitions_are_refused() {
    let find = |partitions| find_boot(Cursor::new(partitioned(&[0; 4096], partitions, 4096)));
    let found = find(128);
    assert!(matches!(found, Err(FindError::NoLoader(looked)) if looked.len() == 128));
    let found = find(129);
    assert!(matches!(found, Err(FindError::Table(why)) if why.contains("128")));
}

/// Sets a field of an inode.
fn set_field(image: &Path, path: &str, field: &str, value: &str) -> bool {
    let Some(debugfs) = tool("debugfs") else {
        return false;
    };
    let request = format!("set_inode_field {path} {field} {value}");
    let done = Command::new(debugfs)
        .args(["-w", "-R", &request])
        .arg(image)
        .output()
        .unwrap();
    assert!(done.status.success());
    true
}

#[test]
fn links_and_directories_of_impossible_sizes_are_refused() {
    let target = format!("-> /{}", "d/".repeat(60));
    let config: Entry<'_> = ("extlinux/extlinux.conf", b"label l\n kernel /link\n");
    for (path, message) in [
        ("/link", "/link has 1073741824 bytes"),
        ("/extlinux", "/extlinux has"),
    ] {
        let dir = TempDir::new().unwrap();
        let root = fill(dir.path(), &[config, ("link", target.as_bytes())]);
        let image = dir.path().join("disk.raw");
        if !mke2fs(&["-O", "^has_journal,^metadata_csum"], &root, &image, "4M")
            || !set_field(&image, path, "size", "1073741824")
        {
            return;
        }
        let before = peak();
        let error = find_boot(File::open(&image).unwrap()).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
        assert!(peak() - before < 32 * MIB);
    }
}

/// A disk with this `grub.cfg`.
fn grub_disk(config: &[u8]) -> Option<Vec<u8>> {
    common::ext4(&[("grub/grub.cfg", config), ("k", &elf())])
}

#[test]
fn a_configuration_of_nothing_but_braces_or_titles_costs_little() {
    let begin = Instant::now();
    let braces = b"{\n".repeat(500_000);
    let Some(disk) = grub_disk(&braces) else { return };
    let refused = find_boot(Cursor::new(disk)).unwrap_err().to_string();
    assert!(refused.contains("/grub/grub.cfg: line"), "{refused}");
    eprintln!("braces {:?}", begin.elapsed());
    let before = peak();
    let mut titles = format!("submenu {} {{\n", "t".repeat(200_000)).into_bytes();
    titles.extend(b"menuentry a {\n linux /k\n}\n".repeat(8_000));
    titles.extend(b"}\n");
    let files = find_boot(Cursor::new(grub_disk(&titles).unwrap())).unwrap();
    assert_eq!(files.kernel_path, "/k");
    let taken = peak() - before;
    eprintln!("titles {:?}, {} KiB", begin.elapsed(), taken >> 10);
    assert!(taken < 200 * MIB, "{taken} bytes");
    assert!(begin.elapsed() < SOON);
}
