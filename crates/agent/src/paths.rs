//! Where things lie in the agent's data directory.
//!
//! ```text
//! pki/                          identity: host.pem (certificate and key), ca.pem, control-plane
//! join.key                      the key of an enrolment that has not been answered yet
//! store.redb  lock
//! counters.sock                 `hearth-agent counters` asks here (0600)
//! images/<ami>/disk.raw         read-only bases, complete
//! images/<ami>/{part.raw,map}   those that are there in part, and what has come of them
//! images/<ami>/encrypted        of those that lie encrypted
//! volumes/<vol>/{data,map}      overlays, complete or absent
//! volumes/<vol>/image           the id of the overlay's base; empty where it has none
//! volumes/<vol>/encrypted       of those that lie encrypted
//! volumes/<vol>/epoch           of its newest attachment, beyond the first
//! volumes/<vol>/dirty           what was written since the newest snapshot (hearth_block::overlay::dirty)
//! volumes/<vol>/<snap>/         a point in time that is being stored (crate::points)
//! stores/<i>/<run>/ephemeral<n> the instance store, of the run that began with it (crate::instance_store)
//! instances/<i>/console         the console ring, kept over runs
//! consoles/<i>                  the console ring of an instance that is gone
//! instances/<i>/monitor.log     the monitor's words in its newest launch
//! instances/<i>/launch-<n>/     control.sock, bases.sock, console.sock, outcome, spawned
//! ```

use std::path::{Path, PathBuf};

/// The agent's data directory.
#[derive(Debug, Clone)]
pub struct DataDir(PathBuf);

impl DataDir {
    /// The socket that [`crate::counters`] answers on.
    pub const COUNTERS: &str = "counters.sock";

    /// Makes the directory and its rooms.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn create(root: &Path) -> std::io::Result<DataDir> {
        use std::os::unix::fs::DirBuilderExt as _;
        let mut private = std::fs::DirBuilder::new();
        private.recursive(true).mode(0o700).create(root)?;
        let dir = DataDir(root.canonicalize()?);
        for room in ["images", "volumes", "stores", "instances", "consoles"] {
            private.create(dir.0.join(room))?;
        }
        Ok(dir)
    }

    pub fn root(&self) -> &Path {
        &self.0
    }

    pub fn pki(&self) -> PathBuf {
        self.0.join("pki")
    }

    pub fn join_key(&self) -> PathBuf {
        self.0.join("join.key")
    }

    pub fn store(&self) -> PathBuf {
        self.0.join("store.redb")
    }

    pub fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    pub fn images(&self) -> PathBuf {
        self.0.join("images")
    }

    pub fn image_disk(&self, image_id: &str) -> PathBuf {
        self.images().join(image_id).join("disk.raw")
    }

    pub fn image_part(&self, image_id: &str) -> PathBuf {
        self.images().join(image_id).join("part.raw")
    }

    pub fn image_map(&self, image_id: &str) -> PathBuf {
        self.images().join(image_id).join("map")
    }

    pub fn volumes(&self) -> PathBuf {
        self.0.join("volumes")
    }

    pub fn volume(&self, volume_id: &str) -> PathBuf {
        self.volumes().join(volume_id)
    }

    pub fn stores(&self) -> PathBuf {
        self.0.join("stores")
    }

    /// The instance store of an instance.
    pub fn store_of(&self, instance_id: &str) -> PathBuf {
        self.stores().join(instance_id)
    }

    pub fn instances(&self) -> PathBuf {
        self.0.join("instances")
    }

    pub fn instance(&self, instance_id: &str) -> PathBuf {
        self.instances().join(instance_id)
    }

    pub fn console(&self, instance_id: &str) -> PathBuf {
        self.instance(instance_id).join("console")
    }

    pub fn kept_consoles(&self) -> PathBuf {
        self.0.join("consoles")
    }

    pub fn kept_console(&self, instance_id: &str) -> PathBuf {
        self.kept_consoles().join(instance_id)
    }

    pub fn monitor_log(&self, instance_id: &str) -> PathBuf {
        self.instance(instance_id).join("monitor.log")
    }

    pub fn launch(&self, instance_id: &str, launch: u64) -> PathBuf {
        self.instance(instance_id).join(format!("launch-{launch}"))
    }
}

/// Whether `id` may name a file: an EC2 id, nothing that walks the tree.
pub fn is_plain_id(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= 64
        && id
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}
