//! A file system on an overlay whose monitor is killed again and again: it is clean, and has what was told to be durable.

use std::collections::BTreeSet;
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use hearth_block::{Backing, Disk as _, Overlay, overlay};
use hearth_vmm::spec::{Cache, DiskBacking, DiskSpec};

use super::harness::Linux;

const MIB: u64 = 1 << 20;
const SIZE: u64 = 128 * MIB;
const CYCLES: usize = 50;
/// Files that the guest keeps. The oldest one goes when a new one is durable.
const KEPT: u64 = 12;
/// Files that a cycle waits for before it kills, at most.
const FILES: u64 = 6;

/// Writes files of random bytes for ever, and says the number of each whose bytes and checksum it has flushed. A checksum
/// goes before its file.
const WRITE: &str = "n=$(cat next 2>/dev/null || echo 1); while :; do \
    dd if=/dev/urandom of=f$n bs=4k count=$((n % 7 * 20 + 1)) conv=fsync 2>/dev/null && md5sum f$n >new && sync && \
    mv new s$n && echo $((n + 1)) >new && sync && mv new next && sync && echo durable $n; rm -f s$((n - KEPT)) f$((n - KEPT)); n=$((n + 1)); done";

struct Files {
    base: PathBuf,
    data: PathBuf,
    map: PathBuf,
}

fn open(path: &Path) -> File {
    let mut options = File::options();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .unwrap()
}

impl Files {
    fn make(dir: &Path) -> Self {
        let [base, data, map] = ["base", "data", "map"].map(|name| dir.join(name));
        open(&base).set_len(SIZE).unwrap();
        let made = Command::new("mke2fs")
            .args(["-q", "-F", "-t", "ext4"])
            .arg(&base)
            .status();
        assert!(made.unwrap().success());
        overlay::create(&open(&data), &open(&map), SIZE, SIZE).unwrap();
        Self { base, data, map }
    }

    fn boot(&self, test: &str) -> Option<Linux> {
        Linux::boot(test, |spec, fds| {
            spec.disks.push(DiskSpec {
                id: "kept".into(),
                serial: "kept".into(),
                read_only: false,
                cache: Cache::default(),
                rate_limit: Default::default(),
                backing: DiskBacking::Overlay {
                    data_fd: fds.give(open(&self.data)),
                    map_fd: fds.give(open(&self.map)),
                    base_fd: Some(fds.give(File::open(&self.base).unwrap())),
                    coming: None,
                    dirty_fd: None,
                    key: None,
                    base_key: None,
                    frozen: None,
                },
            });
        })
    }

    /// Asks `e2fsck` on the host, of a copy of what the overlay holds, after its journal is replayed.
    fn check(&self, copy: &Path) {
        let backing = |path: &Path| Backing::new(open(path)).unwrap();
        let base = Some(backing(&self.base));
        let disk = Overlay::open(backing(&self.data), backing(&self.map), base).unwrap();
        let out = open(copy);
        let mut block = vec![0; MIB as usize];
        for at in (0..SIZE).step_by(block.len()) {
            disk.read_at(&mut block, at).unwrap();
            out.write_all_at(&block, at).unwrap();
        }
        for arguments in [["-y", "-E", "journal_only"].as_slice(), &["-f", "-n"]] {
            let checked = Command::new("e2fsck").args(arguments).arg(copy).output().unwrap();
            let said = String::from_utf8_lossy(&checked.stdout);
            assert!(checked.status.success(), "e2fsck {arguments:?}: {said}");
        }
    }
}

/// The numbers after a word, at line ends.
fn numbers(said: &str, word: &str) -> BTreeSet<u64> {
    let lines = said.lines().filter_map(|line| line.trim().strip_prefix(word));
    lines.filter_map(|number| number.trim().parse().ok()).collect()
}

#[test]
#[ignore = "takes minutes: scripts/test --long"]
fn a_file_system_is_clean_and_whole_after_each_of_fifty_kills() {
    let test = "a_file_system_is_clean_and_whole_after_each_of_fifty_kills";
    let dir = tempfile::tempdir().unwrap();
    let files = Files::make(dir.path());
    let write = WRITE.replace("KEPT", &KEPT.to_string());
    let mut durable = BTreeSet::<u64>::new();
    for cycle in 0..CYCLES {
        let Some(mut linux) = files.boot(test) else { return };
        linux.ok("mount -t ext4 /dev/vda /mnt && cd /mnt");
        if let Some(&last) = durable.last() {
            let (code, said) = linux.run("cat s[0-9]* | md5sum -c");
            let whole = said
                .lines()
                .filter_map(|line| line.trim().strip_prefix('f')?.strip_suffix(": OK"));
            let whole: BTreeSet<u64> = whole.filter_map(|number| number.parse().ok()).collect();
            // The file after the last one may have been begun, and its predecessor removed for it.
            let kept = durable.split_off(&(last + 2).saturating_sub(KEPT).max(1));
            assert!(
                code == 0 && kept.is_subset(&whole),
                "cycle {cycle}: {kept:?} were durable: {said}"
            );
        }
        let random = RandomState::new().hash_one(cycle);
        linux.start(&write);
        for _ in 0..=random % FILES {
            linux.says("durable ");
        }
        std::thread::sleep(Duration::from_millis(random >> 32 & 0x1ff));
        let said = linux.kill();
        durable.extend(numbers(&said, "durable "));
        assert!(!durable.is_empty(), "cycle {cycle}: nothing was durable: {said}");
        files.check(&dir.path().join("copy"));
        let last = durable.last().unwrap();
        eprintln!("{} kills, {last} files were durable", cycle + 1);
    }
}
