//! Snapshots of disks, as chunks that are named by what is in them, in an object store.
//!
//! A disk is cut into chunks of [`CHUNK`] bytes. A chunk that is not all zero is stored once, under the BLAKE3 of its bytes,
//! compressed; whoever reads it checks it against its name. A [tree](tree) of such names, whose nodes are stored in
//! the same way, is a whole disk. A [`Snapshot`] is the name of its root: one that is made from another shares all that did
//! not change, and costs what did.
//!
//! | object | holds |
//! |---|---|
//! | `chunks/ab/cd...` | a chunk, by its BLAKE3; an encrypted one by that under its data key |
//! | `nodes/ab/cd...` | a node of a tree, by its BLAKE3 in key derivation mode |
//! | `snapshots/NAME` | a [`Snapshot`], as JSON |
//! | `pins/SESSION/N` | what a [`Writer`] relies on until its snapshot is there |
//! | `owner` | whose it is |
//! | `condemned` | what a collection is about to delete |
//!
//! A snapshot is there when its object is; everything that it names was durable before. Unfinished ones leave only what
//! [`Repository::collect`] removes. Any store of the `object_store` crate will do whose answers are consistent, as those of
//! S3 and of a local directory are.
//!
//! A disk may have a [data key](DataKey). Then its chunks are sealed, and their names are keyed: who has the store alone reads
//! nothing, cannot tell whether a chunk is equal to one of another data key, and changes nothing that is not found when it is
//! read. What it does see is how large a chunk is when it is compressed, which chunks are zeros, and which snapshots of one data
//! key share chunks: nodes are not encrypted. So chunks are collected, copied and scrubbed without keys. A scrub finds what was
//! damaged, lost or exchanged by the sum of what was stored; what somebody has forged is found when it is read under the key.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;

mod codec;
mod collect;
mod error;
mod key;
mod name;
mod objects;
mod pins;
mod place;
mod reader;
mod scrub;
mod snapshot;
mod staged;
mod survey;
#[cfg(test)]
mod tests;
mod tree;
mod writer;

pub use collect::Collected;
pub use error::Error;
pub use key::DataKey;
pub use name::Id;
pub use place::Place;
pub use reader::Reader;
pub use scrub::{Damage, Scrubbed};
pub use snapshot::Snapshot;
pub use survey::{Share, Survey, Totals};
pub use writer::{Writer, Written};

use name::Name;
use objects::Objects;
use pins::Session;

/// Bytes of a chunk; as the blocks of EBS's direct APIs. The last one of a disk is filled up with zeros.
pub const CHUNK: usize = 512 << 10;
/// Chunks of the largest disk: 64 TiB, the largest volume of EBS.
pub const MAX_CHUNKS: u64 = 1 << (tree::BITS * tree::LEVELS);

/// Requests to the object store at the same time, per writer, collection or scrub.
const AT_ONCE: usize = 16;

/// What keeps snapshots' contents where they are, until it is released or dropped.
#[derive(Debug)]
pub struct Hold(Session);

impl Hold {
    /// # Errors
    /// The store fails.
    pub async fn release(self) -> Result<(), Error> {
        self.0.end().await
    }
}

/// An object store with snapshots.
#[derive(Debug, Clone)]
pub struct Repository {
    objects: Objects,
    /// Where the objects are, if that is a directory.
    directory: Option<PathBuf>,
}

impl Repository {
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self {
            objects: Objects::new(store),
            directory: None,
        }
    }

    /// In a directory, which is made if it is not there. What is written is durable when it is acknowledged.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn in_directory(path: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(path).map_err(|source| Error::directory("making", path, source))?;
        let store = LocalFileSystem::new_with_prefix(path).map_err(|source| Error::Store {
            doing: "opening",
            object: path.display().to_string(),
            source,
        })?;
        let store = store.with_fsync(true).with_automatic_cleanup(false);
        Ok(Self {
            directory: Some(path.to_owned()),
            ..Self::new(Arc::new(store))
        })
    }

    /// Makes the repository that of `owner`, unless it is another one's: who removes the snapshots that it does not know asks
    /// this before.
    ///
    /// # Errors
    /// It is another one's, or the store fails.
    pub async fn claim(&self, owner: &str) -> Result<(), Error> {
        let path = object_store::path::Path::from("owner");
        let found = match self.objects.get(&path).await? {
            None if self.objects.create(&path, owner.to_owned().into()).await? => return Ok(()),
            None => self.objects.get(&path).await?.unwrap_or_default(),
            Some(found) => found,
        };
        match found == owner {
            true => Ok(()),
            false => Err(Error::Foreign {
                owner: String::from_utf8_lossy(&found).chars().take(64).collect(),
            }),
        }
    }

    /// Begins a snapshot: of a blank disk, or of what has changed since `base` was made. `base` may be deleted meanwhile. `key`:
    /// the disk's data key, if it is encrypted.
    ///
    /// # Errors
    /// `base` is not there, or not under this key, or the store fails.
    pub async fn write(&self, base: Option<&str>, key: Option<Arc<DataKey>>) -> Result<Writer, Error> {
        Writer::begin(self.clone(), base, key).await
    }

    /// Opens a snapshot for reading. `key`: its data key, if it is encrypted.
    ///
    /// # Errors
    /// It is not there, is damaged, is not under this key, or the store fails.
    pub async fn read(&self, name: &str, key: Option<Arc<DataKey>>) -> Result<Reader, Error> {
        Reader::open(self.clone(), name, key).await
    }

    /// # Errors
    /// It is not there, is damaged, or the store fails.
    pub async fn snapshot(&self, name: &str) -> Result<Snapshot, Error> {
        let path = snapshot::path(name)?;
        match self.objects.get(&path).await? {
            Some(bytes) => Snapshot::decode(name, &bytes),
            None => Err(Error::NoSuchSnapshot(name.to_owned())),
        }
    }

    /// Names of all snapshots, in no order.
    ///
    /// # Errors
    /// The store fails.
    pub async fn snapshots(&self) -> Result<Vec<String>, Error> {
        self.older_snapshots(Duration::ZERO).await
    }

    /// Names of snapshots that are older than this, in no order.
    ///
    /// # Errors
    /// The store fails.
    pub async fn older_snapshots(&self, age: Duration) -> Result<Vec<String>, Error> {
        let found = self.objects.list(snapshot::ROOM).await?;
        let old = found.into_iter().filter(|object| object.age() >= age);
        Ok(old.filter_map(|object| object.name).collect())
    }

    /// Keeps all that snapshots need which are there now from being collected, until it is released: for whoever copies the
    /// store.
    ///
    /// # Errors
    /// A snapshot is damaged, or the store fails.
    pub async fn hold(&self) -> Result<Hold, Error> {
        let mut session = Session::new(self.objects.clone());
        for name in self.snapshots().await? {
            match self.snapshot(&name).await {
                Ok(Snapshot { root: Some(root), .. }) => session.pin_tree(root).await?,
                Ok(_) | Err(Error::NoSuchSnapshot(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Hold(session))
    }

    /// Deletes a snapshot. That it is not there is no error. What it alone had is removed by the next
    /// [`Repository::collect`].
    ///
    /// # Errors
    /// The store fails.
    pub async fn delete(&self, name: &str) -> Result<(), Error> {
        self.objects.delete(vec![snapshot::path(name)?]).await
    }

    /// Reads a chunk, and what is made of its bytes.
    ///
    /// # Errors
    /// It is not there, is damaged, or the store fails.
    async fn chunk<T: Send + 'static>(
        &self,
        id: Id,
        make: impl FnOnce(&Bytes) -> Result<T, String> + Send + 'static,
    ) -> Result<T, Error> {
        let name = Name::chunk(id);
        let stored = self.objects.get(&name.path()).await?;
        let stored = stored.ok_or_else(|| Error::missing(&name))?;
        let made = tokio::task::spawn_blocking(move || make(&stored)).await;
        made.map_err(|_| Error::damaged(&name, "it cannot be decompressed"))?
            .map_err(|reason| Error::damaged(&name, reason))
    }
}
