//! Disks for tests: `mke2fs -d` and the partition table crates make them.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

pub const MIB: u64 = 1 << 20;

/// A file or a symbolic link (`-> target`) in a file system to be.
pub type Entry<'a> = (&'a str, &'a [u8]);

pub fn elf() -> Vec<u8> {
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0".to_vec();
    elf.resize(50_000, 7);
    elf
}

/// An ext4 file system of 8 MiB. None, and loudly, without e2fsprogs.
pub fn ext4(entries: &[Entry<'_>]) -> Option<Vec<u8>> {
    ext4_with("metadata_csum", entries)
}

/// As [`ext4`], with features (`mke2fs -O`).
pub fn ext4_with(features: &str, entries: &[Entry<'_>]) -> Option<Vec<u8>> {
    let dir = TempDir::new().unwrap();
    let root = fill(dir.path(), entries);
    let image = dir.path().join("image");
    mke2fs(&["-O", features], &root, &image, "8M").then(|| fs::read(image).unwrap())
}

/// Writes the files below a directory in `dir`.
pub fn fill(dir: &Path, entries: &[Entry<'_>]) -> PathBuf {
    let root = dir.join("root");
    for (path, content) in entries {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match content.strip_prefix(b"-> ") {
            Some(target) => std::os::unix::fs::symlink(std::str::from_utf8(target).unwrap(), path).unwrap(),
            None => fs::write(path, content).unwrap(),
        }
    }
    fs::create_dir_all(&root).unwrap();
    root
}

/// Makes an ext4 file system of `root` in the file `image`. False, and loudly, without e2fsprogs.
pub fn mke2fs(options: &[&str], root: &Path, image: &Path, size: &str) -> bool {
    let Some(tool) = tool("mke2fs") else {
        return false;
    };
    let made = Command::new(tool)
        .args(["-q", "-t", "ext4"])
        .args(options)
        .arg("-d")
        .args([root, image])
        .arg(size)
        .status()
        .unwrap();
    assert!(made.success());
    true
}

pub fn tool(name: &str) -> Option<PathBuf> {
    let found = ["/sbin", "/usr/sbin"]
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.exists());
    if found.is_none() {
        eprintln!("SKIPPED: a test of hearth-image: {name} is absent; install e2fsprogs and dosfstools");
    }
    found
}

pub fn gpt_disk(partitions: &[&[u8]]) -> Vec<u8> {
    let size = MIB * (2 + 8 * partitions.len() as u64);
    let mut disk = Cursor::new(vec![0; size as usize]);
    let mut gpt = gpt::GptConfig::new()
        .writable(true)
        .create_from_device(&mut disk, None)
        .unwrap();
    let mut starts = Vec::new();
    for (i, content) in partitions.iter().enumerate() {
        let id = gpt
            .add_partition(
                &format!("p{i}"),
                content.len() as u64,
                gpt::partition_types::LINUX_FS,
                0,
                Some(2048),
            )
            .unwrap();
        starts.push(gpt.partitions()[&id].first_lba * 512);
    }
    gpt.write().unwrap();
    let mut disk = disk.into_inner();
    for (start, content) in starts.into_iter().zip(partitions) {
        disk[start as usize..][..content.len()].copy_from_slice(content);
    }
    disk
}

/// Runs commands of debugfs on an image that it may write to.
pub fn debugfs(image: &Path, commands: &str) -> bool {
    let Some(debugfs) = tool("debugfs") else {
        return false;
    };
    let script = image.with_extension("debugfs");
    fs::write(&script, commands).unwrap();
    let done = Command::new(debugfs)
        .arg("-w")
        .arg("-f")
        .args([&script, image])
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
    true
}

/// What debugfs prints for a request.
pub fn debugfs_says(image: &Path, request: &str) -> String {
    let done = Command::new(tool("debugfs").unwrap())
        .args(["-R", request])
        .arg(image)
        .output()
        .unwrap();
    String::from_utf8(done.stdout).unwrap()
}
