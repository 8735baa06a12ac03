//! What ext4 does to a disk that was booted before: growth, and journals that were not replayed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Entry, debugfs, debugfs_says, elf, fill, mke2fs, tool};
use hearth_image::{BootFiles, FindError, Road, find_road};
use tempfile::TempDir;

fn boot(image: &Path) -> Result<BootFiles, FindError> {
    match find_road(File::open(image).unwrap())? {
        Road::Direct(files) => Ok(files),
        Road::Firmware { because } => panic!("by firmware: {because}"),
    }
}

/// A file system with an extlinux.conf of one block, and the number of that block.
fn with_journal(dir: &Path, options: &[&str]) -> Option<(PathBuf, u64)> {
    let entries: &[Entry<'_>] = &[
        ("extlinux/extlinux.conf", &configuration("on-the-disk")),
        ("k", &elf()),
    ];
    let root = fill(dir, entries);
    let image = dir.join("disk.raw");
    mke2fs(options, &root, &image, "16M").then(|| {
        let block = debugfs_says(&image, "blocks /extlinux/extlinux.conf")
            .trim()
            .parse()
            .unwrap();
        (image, block)
    })
}

/// A block's worth of configuration.
fn configuration(word: &str) -> Vec<u8> {
    let mut text = format!("label l\n kernel /k\n append {word}\n#");
    text.extend(std::iter::repeat_n('x', 1023 - text.len()));
    (text + "\n").into_bytes()
}

const KINDS: &[(&str, &str)] = &[
    // File system features, and options of debugfs' `journal_open`.
    ("metadata_csum,64bit", "-c -v 3"),
    ("metadata_csum,64bit", "-c -v 2"),
    ("^metadata_csum,64bit", ""),
    ("^metadata_csum,^64bit", ""),
    ("^metadata_csum,^64bit,^extent", ""),
];

#[test]
fn a_revoked_block_is_read_from_the_disk() {
    for (features, open) in KINDS {
        let dir = TempDir::new().unwrap();
        let Some((image, block)) = with_journal(dir.path(), &["-b", "1024", "-O", features]) else {
            return;
        };
        let stale = dir.path().join("stale");
        fs::write(&stale, configuration("stale")).unwrap();
        let stale = stale.to_str().unwrap();
        let written = format!("jo {open}\njw -b {block} {stale}\njc\n");
        assert!(debugfs(&image, &written));
        assert_eq!(
            boot(&image).unwrap().cmdline,
            "stale",
            "written: {features} {open}"
        );
        let revoked = format!("jo {open}\njw -r {block}\njc\n");
        assert!(debugfs(&image, &revoked));
        assert_eq!(
            boot(&image).unwrap().cmdline,
            "on-the-disk",
            "revoked: {features} {open}"
        );
        // Written again behind the revocation.
        assert!(debugfs(&image, &written));
        assert_eq!(
            boot(&image).unwrap().cmdline,
            "stale",
            "written again: {features} {open}"
        );
        assert!(debugfs(&image, "jo\njr\njc\n"));
        assert_eq!(
            boot(&image).unwrap().cmdline,
            "stale",
            "replayed: {features} {open}"
        );
    }
}

#[test]
fn a_block_that_begins_like_the_journal_is_unescaped() {
    let dir = TempDir::new().unwrap();
    let Some((image, block)) = with_journal(dir.path(), &["-b", "1024", "-O", "metadata_csum"]) else {
        return;
    };
    // The initrd's second block: what is first in it is the journal's magic.
    let initrd = dir.path().join("initrd");
    let mut content = vec![7; 2048];
    fs::write(&initrd, &content).unwrap();
    assert!(debugfs(&image, &format!("write {} i\n", initrd.display())));
    let blocks = debugfs_says(&image, "blocks /i");
    let second = blocks.split_whitespace().nth(1).unwrap();
    content[1024..1028].copy_from_slice(&[0xc0, 0x3b, 0x39, 0x98]);
    let new = dir.path().join("new");
    fs::write(&new, &content[1024..]).unwrap();
    let config = dir.path().join("config");
    let mut text = b"label l\n kernel /k\n initrd /i\n#".to_vec();
    text.resize(1024, b'y');
    fs::write(&config, text).unwrap();
    let request = format!(
        "jo -c\njw -b {second} {}\njw -b {block} {}\njc\n",
        new.display(),
        config.display()
    );
    assert!(debugfs(&image, &request));
    assert!(boot(&image).unwrap().initrd.unwrap() == content);
}

#[test]
fn a_journal_with_a_wrong_checksum_is_refused() {
    let dir = TempDir::new().unwrap();
    let Some((image, block)) = with_journal(dir.path(), &["-b", "1024", "-O", "metadata_csum"]) else {
        return;
    };
    let stale = dir.path().join("stale");
    fs::write(&stale, configuration("stale-in-the-journal")).unwrap();
    assert!(debugfs(
        &image,
        &format!("jo -c\njw -b {block} {}\njc\n", stale.display())
    ));
    let mut disk = fs::read(&image).unwrap();
    let word = b"stale-in-the-journal";
    let at = disk.windows(word.len()).position(|found| found == word).unwrap();
    disk[at] ^= 1;
    fs::write(&image, disk).unwrap();
    let error = boot(&image).unwrap_err().to_string();
    assert!(
        error.contains("the checksum of a block of its journal is wrong"),
        "{error}"
    );
}

/// Group descriptors that are spread over the disk, and a kernel in a group whose descriptor is not where it was.
#[test]
fn meta_bg_is_read() {
    for features in [
        "meta_bg,^resize_inode,metadata_csum",
        "meta_bg,^resize_inode,^metadata_csum,^64bit",
    ] {
        let dir = TempDir::new().unwrap();
        let root = fill(
            dir.path(),
            &[(
                "extlinux/extlinux.conf",
                b"label l\n kernel /last\n append meta\n",
            )],
        );
        let image = dir.path().join("disk.raw");
        // 1 KiB blocks: a block of descriptors for 16 or 32 groups of 8 MiB. A few inodes in each group.
        let options = ["-b", "1024", "-O", features, "-N", "800"];
        if !mke2fs(&options, &root, &image, "800M") {
            return;
        }
        let (small, kernel) = (dir.path().join("small"), dir.path().join("kernel"));
        fs::write(&small, b"x").unwrap();
        fs::write(&kernel, elf()).unwrap();
        let mut script = String::new();
        for i in 0..600 {
            script.push_str(&format!("write {} f{i}\n", small.display()));
        }
        script.push_str(&format!("write {} last\n", kernel.display()));
        assert!(debugfs(&image, &script));
        let stat = debugfs_says(&image, "imap /last");
        let group: u32 = stat
            .split("block group ")
            .nth(1)
            .unwrap()
            .split_whitespace()
            .next()
            .unwrap()
            .parse()
            .unwrap();
        assert!(group >= 32, "{stat}");
        let files = boot(&image).unwrap();
        assert!(files.cmdline == "meta" && files.kernel == elf());
    }
}

/// Linux itself grows a mounted file system beyond what its group descriptors have room for.
#[test]
fn an_online_growth_that_switches_to_meta_bg_boots_again() {
    let dir = TempDir::new().unwrap();
    let entries: &[Entry<'_>] = &[
        ("extlinux/extlinux.conf", b"label l\n kernel /k\n append grown\n"),
        ("k", &elf()),
    ];
    let root = fill(dir.path(), entries);
    let image = dir.path().join("disk.raw");
    if !mke2fs(&["-b", "4096", "-O", "^resize_inode"], &root, &image, "64M") {
        return;
    }
    File::options()
        .write(true)
        .open(&image)
        .unwrap()
        .set_len(20 << 30)
        .unwrap();
    let mounted = dir.path().join("mounted");
    fs::create_dir(&mounted).unwrap();
    let mount = Command::new("mount")
        .args(["-o", "loop"])
        .args([&image, &mounted])
        .output()
        .unwrap();
    let Some(resize) = tool("resize2fs").filter(|_| mount.status.success()) else {
        eprintln!("SKIPPED: an_online_growth_that_switches_to_meta_bg_boots_again: {mount:?}");
        return;
    };
    let source = Command::new("findmnt")
        .args(["-no", "SOURCE"])
        .arg(&mounted)
        .output()
        .unwrap();
    let device = String::from_utf8(source.stdout).unwrap();
    let grown = Command::new(resize).arg(device.trim()).output().unwrap();
    let unmounted = Command::new("umount").arg(&mounted).status().unwrap();
    assert!(unmounted.success());
    if !grown.status.success() {
        // It takes CAP_SYS_RESOURCE in the first user namespace.
        eprintln!("SKIPPED: an_online_growth_that_switches_to_meta_bg_boots_again: {grown:?}");
        return;
    }
    let features = debugfs_says(&image, "features");
    assert!(features.contains("meta_bg"), "{features}");
    let files = boot(&image).unwrap();
    assert!(files.cmdline == "grown" && files.kernel == elf());
}
