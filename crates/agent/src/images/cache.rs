//! Which images leave the host when others need their bytes.
//!
//! An image stays while a launch is about to use it ([`Pin`]) and while it is the base of a volume of this host, whether
//! or not an intent names that volume. A volume that does not say what its base is keeps every image. Of the images that
//! are left the least recently used go first, until they fit into the cache's share of the disk and until the disk has
//! room for the image that is about to be fetched.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::paths::{DataDir, is_plain_id};
use crate::volume::{self, Bases};

/// The images of this host that are there for later alone, and the rule for how many of them stay.
pub(super) struct Cache {
    dir: DataDir,
    /// Percent of the file system that images without a use may take.
    share: u8,
    /// How many launches are about to use an image. Held while images are removed.
    pins: Mutex<HashMap<String, usize>>,
}

/// Keeps an image on the host while a launch turns it into a volume's base.
pub struct Pin {
    cache: Arc<Cache>,
    image_id: String,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self.cache.pins.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = pins.get_mut(&self.image_id) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.image_id);
            }
        }
    }
}

/// An image that nothing on this host uses.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Idle {
    image_id: String,
    last_use: SystemTime,
    /// That its files take of the disk.
    bytes: u64,
}

impl Cache {
    pub(super) fn new(dir: DataDir, share: u8) -> Cache {
        Cache {
            dir,
            share,
            pins: Mutex::default(),
        }
    }

    /// To be taken before it is looked whether the image is there.
    pub(super) fn pin(self: &Arc<Self>, image_id: &str) -> Pin {
        let mut pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        *pins.entry(image_id.to_owned()).or_default() += 1;
        Pin {
            cache: Arc::clone(self),
            image_id: image_id.to_owned(),
        }
    }

    /// Notes that the image is used now.
    pub(super) fn touch(&self, image_id: &str) {
        let home = self.dir.images().join(image_id);
        if let Err(error) = File::open(&home).and_then(|home| home.set_modified(SystemTime::now())) {
            tracing::debug!(image = image_id, %error, "noting an image's use");
        }
    }

    /// Removes images that are too many, or in the way of `wanted` more bytes. Blocks.
    ///
    /// # Errors
    /// The data directory cannot be read, or an image not removed.
    pub(super) fn trim(&self, wanted: u64) -> io::Result<()> {
        let pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        let bases = match volume::bases(&self.dir)? {
            Bases::Known(bases) => bases,
            Bases::UnknownOf(volume_id) => {
                tracing::warn!(
                    volume_id,
                    "no image is removed: the base of a volume is not known"
                );
                return Ok(());
            }
        };
        let idle = self.idle(&pins, &bases)?;
        let disk = rustix::fs::statvfs(self.dir.root())?;
        let limit = disk.f_blocks.saturating_mul(disk.f_frsize) / 100 * u64::from(self.share);
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let mut removed = Vec::new();
        for victim in victims(idle, limit, wanted.saturating_sub(free)) {
            // Under the lock it only loses its name: a launch finds it whole or not at all.
            let away = self
                .dir
                .images()
                .join(format!(".{}.{:016x}", victim.image_id, rand::random::<u64>()));
            std::fs::rename(self.dir.images().join(&victim.image_id), &away)?;
            removed.push((victim, away));
        }
        drop(pins);
        for (victim, away) in removed {
            std::fs::remove_dir_all(away)?;
            tracing::info!(
                image = victim.image_id,
                bytes = victim.bytes,
                "an unused image was removed"
            );
        }
        Ok(())
    }

    fn idle(&self, pins: &HashMap<String, usize>, bases: &HashSet<String>) -> io::Result<Vec<Idle>> {
        let mut idle = Vec::new();
        for entry in std::fs::read_dir(self.dir.images())? {
            let entry = entry?;
            let Ok(image_id) = entry.file_name().into_string() else {
                continue;
            };
            if !is_plain_id(&image_id) || pins.contains_key(&image_id) || bases.contains(&image_id) {
                continue;
            }
            // Anything without a disk is not an image of this agent's.
            let files = [
                self.dir.image_disk(&image_id),
                self.dir.image_part(&image_id),
                self.dir.image_map(&image_id),
            ];
            let files = files.iter().filter_map(|file| std::fs::metadata(file).ok());
            let Some(blocks) = files.map(|file| file.blocks()).reduce(|sum, blocks| sum + blocks) else {
                continue;
            };
            idle.push(Idle {
                image_id,
                last_use: entry.metadata()?.modified()?,
                bytes: blocks * 512,
            });
        }
        Ok(idle)
    }
}

/// The least recently used, until the others fit into `limit` bytes and `shortage` bytes are freed.
fn victims(mut idle: Vec<Idle>, limit: u64, shortage: u64) -> Vec<Idle> {
    idle.sort_by(|a, b| (a.last_use, &a.image_id).cmp(&(b.last_use, &b.image_id)));
    let mut left: u64 = idle.iter().map(|image| image.bytes).sum();
    let mut freed = 0;
    let mut victims = Vec::new();
    for image in idle {
        if left <= limit && freed >= shortage {
            break;
        }
        left -= image.bytes;
        freed += image.bytes;
        victims.push(image);
    }
    victims
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct Host {
        dir: DataDir,
        _root: tempfile::TempDir,
    }

    impl Host {
        fn new() -> Host {
            let root = tempfile::tempdir().unwrap();
            Host {
                dir: DataDir::create(root.path()).unwrap(),
                _root: root,
            }
        }

        fn image(&self, image_id: &str) {
            std::fs::create_dir(self.dir.images().join(image_id)).unwrap();
            std::fs::write(self.dir.image_disk(image_id), vec![1; 64 << 10]).unwrap();
        }

        fn images(&self) -> Vec<String> {
            let entries = std::fs::read_dir(self.dir.images()).unwrap();
            let mut names: Vec<String> = entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        }

        fn cache(&self, share: u8) -> Arc<Cache> {
            Arc::new(Cache::new(self.dir.clone(), share))
        }
    }

    #[test]
    fn the_least_recently_used_go_until_the_rest_fits() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let image = |id: &str, seconds, bytes| Idle {
            image_id: id.to_owned(),
            last_use: at(seconds),
            bytes,
        };
        let all = || vec![image("new", 3, 10), image("old", 1, 10), image("middle", 2, 10)];
        let ids = |limit, shortage| -> Vec<String> {
            let victims = victims(all(), limit, shortage).into_iter();
            victims.map(|image| image.image_id).collect()
        };
        assert!(ids(30, 0).is_empty());
        assert_eq!(ids(29, 0), ["old"]);
        assert_eq!(ids(30, 11), ["old", "middle"]);
        assert_eq!(ids(0, 0), ["old", "middle", "new"]);
        assert_eq!(ids(30, 1000), ["old", "middle", "new"]);
    }

    #[test]
    fn a_volumes_base_and_what_a_launch_needs_stay() {
        let host = Host::new();
        for image in ["ami-idle", "ami-base", "ami-pinned"] {
            host.image(image);
        }
        // Something that is not an image.
        std::fs::create_dir(host.dir.images().join("lost+found")).unwrap();
        volume::ensure(&host.dir, "vol-1", "ami-base", 1 << 20, 1 << 20, false).unwrap();
        let cache = host.cache(0);
        let pin = cache.pin("ami-pinned");
        let second = cache.pin("ami-pinned");
        drop(second);
        cache.trim(0).unwrap();
        assert_eq!(host.images(), ["ami-base", "ami-pinned", "lost+found"]);
        drop(pin);
        cache.trim(u64::MAX).unwrap();
        assert_eq!(host.images(), ["ami-base", "lost+found"]);
        volume::remove(&host.dir, "vol-1").unwrap();
        cache.trim(0).unwrap();
        assert_eq!(host.images(), ["lost+found"]);
    }

    #[test]
    fn a_volume_with_an_unknown_base_keeps_every_image() {
        let host = Host::new();
        host.image("ami-1");
        // As an older agent laid it.
        volume::ensure(&host.dir, "vol-1", "ami-1", 1 << 20, 1 << 20, false).unwrap();
        std::fs::remove_file(host.dir.volume("vol-1").join("image")).unwrap();
        host.cache(0).trim(u64::MAX).unwrap();
        assert_eq!(host.images(), ["ami-1"]);
        // What an intent says of it is kept, and no other word replaces it.
        volume::note_base(&host.dir, "vol-1", "ami-1").unwrap();
        volume::note_base(&host.dir, "vol-1", "ami-2").unwrap();
        volume::note_base(&host.dir, "vol-none", "ami-1").unwrap();
        host.image("ami-2");
        host.cache(0).trim(0).unwrap();
        assert_eq!(host.images(), ["ami-1"]);
    }

    #[test]
    fn what_fits_into_the_share_stays() {
        let host = Host::new();
        host.image("ami-1");
        host.cache(100).trim(0).unwrap();
        assert_eq!(host.images(), ["ami-1"]);
    }
}
