//! What the host offers to instances, all together.
//!
//! - vCPUs: online CPUs times the overcommit; CPU time is shared, so more than one per CPU is useful.
//! - Memory: the machine's total less a reserve for the host itself. Never overcommitted.
//! - Disk: what is free on the data directory's file system plus what volumes and disks of the instance store have already
//!   taken of it, times the overcommit. Claims are by a disk's full size though all are sparse: without overcommit a host
//!   that is filled to its capacity can still hold every byte that its guests may write, but for what bases and snapshots
//!   that are being stored take later: their room is not kept free, and what they take is not offered any more. With it, a
//!   host whose file system is nearly full
//!   ([`FULL`]) offers nothing more.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use hearth_api::agent::Capacity;
use rustix::fs::StatVfs;

use crate::paths::DataDir;

#[derive(Debug, Clone, Copy)]
pub struct Reserve {
    pub vcpu_overcommit: u32,
    pub memory_mib: u64,
    pub disk_overcommit: u32,
}

/// Parts of the file system that are free, of 100, at which a host with overcommit takes no more volumes.
const FULL: u64 = 5;

/// Measures; blocks for a moment.
///
/// # Errors
/// `/proc` or the data directory cannot be read.
pub fn measure(dir: &DataDir, reserve: Reserve) -> std::io::Result<Capacity> {
    let cpus = std::thread::available_parallelism()?.get();
    let cpus = u32::try_from(cpus).unwrap_or(u32::MAX);
    let total_mib = total_memory_kib()? / 1024;
    let disk = rustix::fs::statvfs(dir.root())?;
    let taken = taken(&dir.volumes()).saturating_add(allocated(&dir.stores()));
    let disk_bytes = offered(&disk, taken, reserve.disk_overcommit);
    Ok(Capacity {
        vcpus: cpus.saturating_mul(reserve.vcpu_overcommit),
        memory_mib: total_mib.saturating_sub(reserve.memory_mib),
        // Whole GiB: every log line on the file system would otherwise be news.
        disk_bytes: disk_bytes & !((1 << 30) - 1),
        cpus,
    })
}

/// Bytes.
fn offered(disk: &StatVfs, taken: u64, overcommit: u32) -> u64 {
    let is_full = disk.f_bavail < disk.f_blocks / 100 * FULL;
    let there = disk.f_bavail.saturating_mul(disk.f_frsize).saturating_add(taken);
    match overcommit > 1 && is_full {
        true => 0,
        false => there.saturating_mul(overcommit.into()),
    }
}

fn total_memory_kib() -> std::io::Result<u64> {
    let info = std::fs::read_to_string("/proc/meminfo")?;
    info.lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|kib| kib.trim().parse().ok())
        .ok_or_else(|| std::io::Error::other("/proc/meminfo has no MemTotal"))
}

/// Bytes that volumes take as such: without what is kept for their snapshots while these are stored, which no size of a volume
/// promises.
fn taken(volumes: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(volumes) else {
        return 0;
    };
    let files = entries
        .flatten()
        .filter_map(|volume| std::fs::read_dir(volume.path()).ok());
    let blocks = files.flatten().flatten().filter_map(|file| {
        let meta = file.metadata().ok()?;
        meta.is_file().then(|| meta.blocks())
    });
    blocks.sum::<u64>() * 512
}

/// Bytes that the files below `path` take of the disk. What vanishes meanwhile counts as nothing.
pub fn allocated(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => allocated(&entry.path()),
            Ok(meta) => meta.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_for_snapshots_is_no_room_for_volumes() {
        let root = tempfile::tempdir().unwrap();
        let point = root.path().join("vol-1/snap-1");
        std::fs::create_dir_all(&point).unwrap();
        std::fs::write(root.path().join("vol-1/data"), vec![1; 1 << 20]).unwrap();
        let own = taken(root.path());
        assert!((1 << 20..2 << 20).contains(&own), "{own}");
        std::fs::write(point.join("frozen"), vec![1; 4 << 20]).unwrap();
        assert_eq!(taken(root.path()), own);
        assert!(allocated(root.path()) >= own + (4 << 20));
        assert_eq!(taken(&root.path().join("none")), 0);
    }

    #[test]
    fn a_host_with_overcommit_takes_nothing_more_when_its_disk_is_nearly_full() {
        let mut disk = rustix::fs::statvfs("/").unwrap();
        (disk.f_blocks, disk.f_frsize) = (1000, 4096);
        for (free, overcommit, expected) in [
            (400, 1, 410 * 4096),
            (400, 3, 3 * 410 * 4096),
            (50, 3, 3 * 60 * 4096),
            (49, 3, 0),
            (49, 1, 59 * 4096),
            (400, u32::MAX, u64::from(u32::MAX) * 410 * 4096),
        ] {
            disk.f_bavail = free;
            assert_eq!(
                offered(&disk, 10 * 4096, overcommit),
                expected,
                "{free} free, times {overcommit}"
            );
        }
    }
}
