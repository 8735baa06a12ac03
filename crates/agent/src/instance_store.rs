//! The instance store: disks of an instance that are there from the beginning of a run to its end, in plain sparse files.
//!
//! They are of the run that began with them, and lie in its directory: reboots, new agents and recoveries of the run find them
//! there, and another run begins with none. So a guest sees zeros, or what it has written itself.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use hearth_api::agent::{InstanceIntent, InstanceStoreDisk};

use crate::paths::{DataDir, is_plain_id};
use crate::volume::{VolumeError, io_error, remove_tree};

/// A disk, open.
#[derive(Debug)]
pub struct StoreDisk {
    /// What the monitor and the guest know it by.
    pub name: String,
    pub file: File,
    /// Bytes.
    pub size: u64,
}

/// `ephemeral0`, ...
pub fn name(number: u32) -> String {
    format!("ephemeral{number}")
}

/// Opens the disks of an instance, and makes those that are not there. What is there of other runs is removed. Blocks.
///
/// # Errors
/// The disk is full, or the file system takes no file so large.
pub fn open(dir: &DataDir, intent: &InstanceIntent) -> Result<Vec<StoreDisk>, VolumeError> {
    sweep(dir, &intent.instance_id, Some(intent.store_run))?;
    if intent.store_disks.is_empty() {
        return Ok(Vec::new());
    }
    let home = of_run(dir, &intent.instance_id, intent.store_run);
    std::fs::create_dir_all(&home).map_err(|source| io_error("making", &home, source))?;
    let disks = intent.store_disks.iter().map(|disk| open_disk(&home, disk));
    disks.collect()
}

fn of_run(dir: &DataDir, instance_id: &str, run: u64) -> PathBuf {
    dir.store_of(instance_id).join(run.to_string())
}

fn open_disk(home: &std::path::Path, wanted: &InstanceStoreDisk) -> Result<StoreDisk, VolumeError> {
    let name = name(wanted.number);
    let path = home.join(&name);
    let mut options = File::options();
    let opened = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    let file = opened.map_err(|source| io_error("opening", &path, source))?;
    // One that a killed agent has made has no size yet.
    let sized = file
        .metadata()
        .and_then(|found| match found.len() == wanted.size_bytes {
            true => Ok(()),
            false => file.set_len(wanted.size_bytes),
        });
    sized.map_err(|source| io_error("making room for", &path, source))?;
    Ok(StoreDisk {
        name,
        file,
        size: wanted.size_bytes,
    })
}

/// Removes the disks of all runs of an instance but one. Blocks.
///
/// # Errors
/// They cannot be removed.
pub fn sweep(dir: &DataDir, instance_id: &str, keep: Option<u64>) -> Result<(), VolumeError> {
    // Ids name files here.
    if !is_plain_id(instance_id) {
        return Ok(());
    }
    let home = dir.store_of(instance_id);
    let Some(keep) = keep else {
        return remove_tree(&home);
    };
    let keep = of_run(dir, instance_id, keep);
    let entries = match std::fs::read_dir(&home) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|source| io_error("listing", &home, source))?,
    };
    for entry in entries {
        let path = entry.map_err(|source| io_error("listing", &home, source))?.path();
        if path != keep {
            remove_tree(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};

    use super::*;

    fn intent(run: u64, sizes: &[u64]) -> InstanceIntent {
        let disk = |(number, size): (u32, &u64)| InstanceStoreDisk {
            number,
            size_bytes: *size,
            device_name: String::new(),
        };
        InstanceIntent {
            instance_id: "i-1".into(),
            store_run: run,
            store_disks: (0..).zip(sizes).map(disk).collect(),
            ..InstanceIntent::default()
        }
    }

    #[test]
    fn disks_of_the_instance_store_are_of_one_run() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::create(root.path()).unwrap();
        let read = |disk: &StoreDisk| {
            let mut bytes = [0; 4];
            disk.file.read_exact_at(&mut bytes, 1 << 20).unwrap();
            bytes
        };
        let disks = open(&dir, &intent(1, &[1 << 40, 1 << 30])).unwrap();
        let sizes: Vec<u64> = disks
            .iter()
            .map(|disk| disk.file.metadata().unwrap().len())
            .collect();
        assert_eq!(sizes, [1 << 40, 1 << 30]);
        assert_eq!(disks[1].name, "ephemeral1");
        disks[0].file.write_all_at(b"mine", 1 << 20).unwrap();
        let blocks = disks[0].file.metadata().unwrap().blocks();
        assert!(blocks < 1000, "{blocks} blocks: it is sparse");
        // A reboot, or another agent.
        let again = open(&dir, &intent(1, &[1 << 40, 1 << 30])).unwrap();
        assert_eq!(read(&again[0]), *b"mine");
        // Shut down for an image: the next run has the disks of this one.
        sweep(&dir, "i-1", Some(1)).unwrap();
        assert_eq!(read(&open(&dir, &intent(1, &[1 << 40])).unwrap()[0]), *b"mine");
        // Another run.
        let new = open(&dir, &intent(2, &[1 << 40])).unwrap();
        assert_eq!(read(&new[0]), [0; 4]);
        assert!(!of_run(&dir, "i-1", 1).exists());
        // The end of a run, twice.
        for _ in 0..2 {
            sweep(&dir, "i-1", None).unwrap();
            assert!(!dir.store_of("i-1").exists());
        }
        // Most instances have none.
        assert!(open(&dir, &intent(3, &[])).unwrap().is_empty());
        assert!(!dir.store_of("i-1").exists());
        sweep(&dir, "../volumes", None).unwrap();
        assert!(dir.volumes().exists());
    }

    #[test]
    fn a_disk_that_a_killed_agent_has_begun_is_made_whole() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::create(root.path()).unwrap();
        let home = of_run(&dir, "i-1", 1);
        std::fs::create_dir_all(&home).unwrap();
        std::fs::write(home.join("ephemeral0"), b"").unwrap();
        let disks = open(&dir, &intent(1, &[1 << 20, 1 << 20])).unwrap();
        assert!(
            disks
                .iter()
                .all(|disk| disk.file.metadata().unwrap().len() == 1 << 20)
        );
    }
}
