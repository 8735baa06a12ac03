//! What lies on the host's disk, for the operator who asks.

use std::io;

use hearth_api::agent::{StorageReport, StorageRequest, VolumeStorage};
use hearth_block::Overlay;

use crate::capacity::{Reserve, allocated};
use crate::host;
use crate::paths::{DataDir, is_plain_id};
use crate::points::Tracked;
use crate::volume::open_file;

/// Volumes that one question may be about.
const MOST: usize = 1000;

/// Looks. Blocks: for as long as it takes to look at each file of volumes and images, and to read the maps of those that were
/// asked for.
///
/// # Errors
/// The disk cannot be read.
pub fn report(dir: &DataDir, reserve: Reserve, request: &StorageRequest) -> io::Result<StorageReport> {
    let boot = host::boot_id()?;
    let disk = rustix::fs::statvfs(dir.root())?;
    let asked = request.volume_ids.iter().take(MOST);
    let volumes = asked.filter_map(|id| match volume(dir, id, &boot) {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(volume = id, %error, "looking at what a volume takes");
            None
        }
    });
    Ok(StorageReport {
        request_id: request.request_id,
        error: String::new(),
        total_bytes: disk.f_blocks.saturating_mul(disk.f_frsize),
        free_bytes: disk.f_bavail.saturating_mul(disk.f_frsize),
        volume_bytes: allocated(&dir.volumes()),
        base_bytes: allocated(&dir.images()),
        instance_store_bytes: allocated(&dir.stores()),
        overcommit: reserve.disk_overcommit,
        volumes: volumes.collect(),
    })
}

/// `None`: it is not here, or goes just now.
fn volume(dir: &DataDir, id: &str, boot: &str) -> io::Result<Option<VolumeStorage>> {
    let path = dir.volume(id);
    if !is_plain_id(id) || !path.join("data").exists() {
        return Ok(None);
    }
    let info = open_file(&path.join("map"), false).map_err(io::Error::other)?;
    let info = Overlay::inspect(&info).map_err(io::Error::other)?;
    let written = Tracked::new(dir, id, boot).written(info.size);
    let present = info.present_chunks.saturating_mul(info.chunk_size).min(info.size);
    Ok(Some(VolumeStorage {
        volume_id: id.to_owned(),
        allocated_bytes: allocated(&path),
        written_bytes: written.map_err(io::Error::other)?.unwrap_or(present),
        shared_bytes: info.shared,
    }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use hearth_block::Disk as _;

    use super::*;
    use crate::volume;

    const MIB: u64 = 1 << 20;

    fn asked(dir: &DataDir, ids: &[&str]) -> StorageReport {
        let request = StorageRequest {
            request_id: 7,
            volume_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        };
        let reserve = Reserve {
            vcpu_overcommit: 1,
            memory_mib: 0,
            disk_overcommit: 3,
        };
        report(dir, reserve, &request).unwrap()
    }

    #[test]
    fn a_volume_tells_what_it_takes_what_was_written_and_what_is_its_images() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::create(root.path()).unwrap();
        volume::ensure(&dir, "vol-1", "ami-1", 4 * MIB, 8 * MIB, false).unwrap();
        let told = asked(&dir, &["vol-1", "vol-2", "../vol-1", ""]);
        assert_eq!(
            (told.request_id, told.overcommit, told.error.as_str()),
            (7, 3, "")
        );
        assert!(told.free_bytes <= told.total_bytes && told.total_bytes > 0);
        let [fresh] = told.volumes.as_slice() else {
            panic!("{told:?}")
        };
        assert_eq!((fresh.written_bytes, fresh.shared_bytes), (0, 4 * MIB));
        assert_eq!(told.instance_store_bytes, 0);
        let run = dir.store_of("i-1").join("1");
        std::fs::create_dir_all(&run).unwrap();
        std::fs::write(run.join("ephemeral0"), vec![7; MIB as usize]).unwrap();
        assert!(asked(&dir, &[]).instance_store_bytes >= MIB);

        let open = |file: &str| open_file(&dir.volume("vol-1").join(file), true).unwrap();
        let base = tempfile::tempfile().unwrap();
        base.set_len(4 * MIB).unwrap();
        let disk = Overlay::open(open("data"), open("map"), base).unwrap();
        disk.write_at(&vec![7; MIB as usize], 3 * MIB + MIB / 2).unwrap();
        disk.flush().unwrap();
        drop(disk);
        let told = asked(&dir, &["vol-1"]);
        let written = &told.volumes[0];
        assert_eq!(
            (written.written_bytes, written.shared_bytes),
            (MIB, 3 * MIB + MIB / 2)
        );
        assert!(written.allocated_bytes >= MIB && told.volume_bytes >= written.allocated_bytes);

        // A dirty map of this boot of the host says what was written since.
        let boot = host::boot_id().unwrap();
        let tracking = Tracked::new(&dir, "vol-1", &boot).tracking().unwrap();
        assert_eq!(asked(&dir, &["vol-1"]).volumes[0].written_bytes, MIB);
        // Its marks begin after its header of a page; a unit is 512 KiB.
        tracking.dirty.write_all_at(&[1], 4096).unwrap();
        assert_eq!(asked(&dir, &["vol-1"]).volumes[0].written_bytes, MIB + MIB / 2);
    }
}
