//! Whether the disks under a directory give each cgroup its share.
//!
//! Weights of cgroups (`io.weight`, `io.bfq.weight`) are heeded by the I/O scheduler bfq and by iocost, and by nothing
//! else; distributions leave both off. Which scheduler a disk has is the administrator's to decide.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor};

/// A device may stand on devices that stand on devices: LVM on RAID on partitions.
const MAX_DEPTH: usize = 8;

/// The disks below `dir` whose cgroups have no shares, by the kernel's names.
///
/// # Errors
/// Which disks it is on is not to be found: its file system spans several (btrfs, ZFS) or is a network's.
pub fn without_shares(dir: &Path) -> io::Result<Vec<String>> {
    let device = dir.metadata()?.dev();
    let number = format!("{}:{}", major(device), minor(device));
    let qos = std::fs::read_to_string("/sys/fs/cgroup/io.cost.qos").unwrap_or_default();
    let mut without = Vec::new();
    look(
        &Path::new("/sys/dev/block").join(number),
        &qos,
        MAX_DEPTH,
        &mut without,
    )?;
    without.sort();
    without.dedup();
    Ok(without)
}

/// Goes down from a block device, by its directory of sysfs, to the disks that it is on.
fn look(device: &Path, qos: &str, depth: usize, without: &mut Vec<String>) -> io::Result<()> {
    let mut device = device.canonicalize()?;
    if device.join("partition").exists() {
        device.pop();
    }
    let lower: Vec<PathBuf> = std::fs::read_dir(device.join("slaves"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<_>>()?;
    if depth > 0 && !lower.is_empty() {
        return lower
            .iter()
            .try_for_each(|device| look(device, qos, depth - 1, without));
    }
    let number = std::fs::read_to_string(device.join("dev"))?;
    let scheduler = std::fs::read_to_string(device.join("queue/scheduler")).unwrap_or_default();
    if !scheduler.contains("[bfq]") && !has_iocost(qos, number.trim()) {
        let name = device.file_name().unwrap_or_default();
        without.push(name.to_string_lossy().into_owned());
    }
    Ok(())
}

/// Whether `io.cost.qos` (a line for each disk, `254:0 enable=1 ctrl=auto ...`) has it on for this disk.
fn has_iocost(qos: &str, number: &str) -> bool {
    qos.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some(number) && words.any(|word| word == "enable=1")
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A directory as sysfs has it of a disk.
    fn disk(root: &Path, name: &str, number: &str, scheduler: &str) -> PathBuf {
        let dir = root.join(name);
        std::fs::create_dir_all(dir.join("queue")).unwrap();
        std::fs::create_dir_all(dir.join("slaves")).unwrap();
        std::fs::write(dir.join("dev"), format!("{number}\n")).unwrap();
        std::fs::write(dir.join("queue/scheduler"), scheduler).unwrap();
        dir
    }

    fn found(device: &Path, qos: &str) -> Vec<String> {
        let mut without = Vec::new();
        look(device, qos, MAX_DEPTH, &mut without).unwrap();
        without
    }

    #[test]
    fn shares_need_bfq_or_iocost_on_every_disk_below() {
        let root = tempfile::tempdir().unwrap();
        let bfq = disk(root.path(), "sda", "8:0", "none mq-deadline [bfq]\n");
        let plain = disk(root.path(), "vda", "254:0", "[none] mq-deadline bfq\n");
        let partition = plain.join("vda1");
        std::fs::create_dir(&partition).unwrap();
        std::fs::write(partition.join("partition"), "1\n").unwrap();
        assert!(found(&bfq, "").is_empty());
        assert_eq!(found(&partition, ""), ["vda"]);
        assert_eq!(found(&plain, "8:0 enable=1 ctrl=auto\n254:0 enable=0\n"), ["vda"]);
        assert!(found(&plain, "254:0 enable=1 ctrl=auto model=linear\n").is_empty());

        let mapped = disk(root.path(), "dm-0", "253:0", "none\n");
        symlink(&bfq, mapped.join("slaves/sda")).unwrap();
        assert!(found(&mapped, "").is_empty());
        symlink(&partition, mapped.join("slaves/vda1")).unwrap();
        assert_eq!(found(&mapped, ""), ["vda"]);
    }

    #[test]
    fn a_file_system_without_a_device_is_said_to_be_one() {
        assert!(without_shares(Path::new("/proc")).is_err());
    }
}
