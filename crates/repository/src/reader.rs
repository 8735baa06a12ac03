//! Reads a snapshot.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::error::Error;
use crate::name::Id;
use crate::tree::{BITS, LEVELS, Node};
use crate::{CHUNK, DataKey, Repository, Snapshot, codec};

/// Nodes in memory, each at most 17 KiB: those of 128 GiB of data.
const NODES: usize = 512;

/// A snapshot that is open. It reads what is there: somebody has to keep the snapshot from being deleted.
#[derive(Debug)]
pub struct Reader {
    repository: Repository,
    snapshot: Snapshot,
    key: Option<Arc<DataKey>>,
    nodes: Mutex<HashMap<Id, Arc<Node>>>,
}

impl Reader {
    pub(crate) async fn open(
        repository: Repository,
        name: &str,
        key: Option<Arc<DataKey>>,
    ) -> Result<Self, Error> {
        let snapshot = repository.snapshot(name).await?;
        if snapshot.key.as_deref() != key.as_deref().map(DataKey::fingerprint) {
            return Err(Error::OtherKey(name.to_owned()));
        }
        Ok(Self {
            repository,
            snapshot,
            key,
            nodes: Mutex::default(),
        })
    }

    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    async fn node(&self, id: Id) -> Result<Arc<Node>, Error> {
        let lock = || self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(node) = lock().get(&id) {
            return Ok(Arc::clone(node));
        }
        let node = Arc::new(Node::load(&self.repository.objects, id).await?);
        let mut nodes = lock();
        if nodes.len() >= NODES {
            nodes.clear();
        }
        nodes.insert(id, Arc::clone(&node));
        Ok(node)
    }

    /// The name of a chunk; `None`: zeros.
    ///
    /// # Errors
    /// A node is not there, is damaged, or the store fails.
    pub async fn chunk_id(&self, index: u64) -> Result<Option<Id>, Error> {
        let mut found = self.snapshot.root;
        for level in (0..LEVELS).rev() {
            let Some(id) = found else { return Ok(None) };
            found = self.node(id).await?.child(index, level);
        }
        Ok(found)
    }

    /// A chunk of the disk, all [`CHUNK`] bytes of it; `None`: zeros.
    ///
    /// # Errors
    /// As [`Reader::chunk_id`], and of the chunk.
    pub async fn chunk(&self, index: u64) -> Result<Option<Bytes>, Error> {
        match self.chunk_id(index).await? {
            Some(id) => self.named(id).await.map(Some),
            None => Ok(None),
        }
    }

    /// A chunk of the snapshot by its name.
    ///
    /// # Errors
    /// It is not there, is damaged, or the store fails.
    pub async fn named(&self, id: Id) -> Result<Bytes, Error> {
        let key = self.key.clone();
        let decode = move |stored: &Bytes| codec::decode_chunk(id, stored, key.as_deref());
        self.repository.chunk(id, decode).await
    }

    /// The first chunk from `index` on that is not zeros, and its name. Parts that are zeros cost nothing.
    ///
    /// # Errors
    /// As [`Reader::chunk_id`].
    pub async fn next(&self, index: u64) -> Result<Option<(u64, Id)>, Error> {
        let mut at = index;
        while at < self.snapshot.size.div_ceil(CHUNK as u64) {
            let mut found = self.snapshot.root;
            let mut skip = LEVELS;
            for level in (0..LEVELS).rev() {
                let Some(id) = found else { break };
                let node = self.node(id).await?;
                skip = level;
                found = node.child(at, level);
            }
            if let Some(id) = found {
                return Ok(Some((at, id)));
            }
            if skip == LEVELS {
                return Ok(None);
            }
            // Beyond the empty place.
            at = ((at >> (BITS * skip)) + 1) << (BITS * skip);
        }
        Ok(None)
    }
}
