//! Makes a snapshot.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::error::Error;
use crate::name::{Id, Name};
use crate::pins::Session;
use crate::snapshot::{self, Snapshot};
use crate::tree::{self, MAX_SIZE};
use crate::{AT_ONCE, CHUNK, DataKey, MAX_CHUNKS, Reader, Repository, codec};

/// Chunks that are pinned, looked for and stored together: 32 MiB of them are in memory.
const BATCH: usize = 64;

/// What a snapshot took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Chunks that were given, and were not zero.
    pub chunks: u64,
    /// Of them, those that the repository did not have.
    pub new_chunks: u64,
    /// Bytes in the object store of what is new, nodes included.
    pub new_bytes: u64,
}

/// A snapshot that is being made. Dropping it gives it up; what it alone stored is removed by the next collection.
#[derive(Debug)]
pub struct Writer {
    repository: Repository,
    session: Session,
    base: Option<Reader>,
    key: Option<Arc<DataKey>>,
    batch: Vec<(u64, Bytes)>,
    changes: BTreeMap<u64, Option<Id>>,
    written: Written,
}

impl Writer {
    pub(crate) async fn begin(
        repository: Repository,
        base: Option<&str>,
        key: Option<Arc<DataKey>>,
    ) -> Result<Self, Error> {
        let mut session = Session::new(repository.objects.clone());
        let mut reader = None;
        if let Some(name) = base {
            let opened = Reader::open(repository.clone(), name, key.clone()).await?;
            if let Some(root) = opened.snapshot().root {
                session.pin_tree(root).await?;
                // It may have been deleted, and collected, before it was pinned.
                repository.snapshot(name).await?;
            }
            reader = Some(opened);
        }
        Ok(Self {
            repository,
            session,
            base: reader,
            key,
            batch: Vec::new(),
            changes: BTreeMap::new(),
            written: Written::default(),
        })
    }

    /// Takes a chunk of the disk; the last one filled up with zeros. One that is given again replaces the first.
    ///
    /// # Errors
    /// It is no chunk, or the store fails.
    pub async fn put(&mut self, index: u64, chunk: Bytes) -> Result<(), Error> {
        if index >= MAX_CHUNKS {
            return Err(Error::Outside { index });
        }
        if chunk.len() != CHUNK {
            return Err(Error::ChunkSize { found: chunk.len() });
        }
        self.batch.push((index, chunk));
        match self.batch.len() {
            ..BATCH => Ok(()),
            _ => self.store_batch().await,
        }
    }

    /// The chunk is zeros now.
    ///
    /// # Errors
    /// It lies outside of every disk, or the store fails.
    pub async fn zero(&mut self, index: u64) -> Result<(), Error> {
        if index >= MAX_CHUNKS {
            return Err(Error::Outside { index });
        }
        self.store_batch().await?;
        self.changes.insert(index, None);
        Ok(())
    }

    async fn store_batch(&mut self) -> Result<(), Error> {
        let batch = std::mem::take(&mut self.batch);
        let key = self.key.clone();
        let hash = move || {
            let named = batch.into_iter().map(|(index, chunk)| {
                let is_zero = chunk.iter().all(|byte| *byte == 0);
                let id = (!is_zero).then(|| Id::under(key.as_deref(), &chunk));
                (index, id, chunk)
            });
            named.collect::<Vec<_>>()
        };
        let named = blocking(hash).await?;
        let mut wanted: HashMap<Id, Bytes> = HashMap::new();
        for (index, id, chunk) in named {
            let is_as_before = match &self.base {
                Some(base) => base.chunk_id(index).await? == id,
                None => false,
            };
            if let Some(id) = id {
                self.written.chunks += 1;
                if !is_as_before {
                    wanted.insert(id, chunk);
                }
            }
            self.changes.insert(index, id);
        }
        self.session.pin(wanted.keys().map(|id| Name::chunk(*id))).await?;
        let (objects, key) = (&self.repository.objects, &self.key);
        let store = |(id, chunk): (Id, Bytes)| async move {
            let path = Name::chunk(id).path();
            if objects.exists(&path).await? {
                return Ok(None);
            }
            let key = key.clone();
            let stored = blocking(move || codec::encode_chunk(id, &chunk, key.as_deref())).await?;
            let stored = stored.map_err(|reason| Error::damaged(&Name::chunk(id), reason))?;
            let bytes = stored.len() as u64;
            objects.put(&path, stored).await?;
            Ok::<_, Error>(Some(bytes))
        };
        let mut stored = stream::iter(wanted).map(store).buffer_unordered(AT_ONCE);
        while let Some(new) = stored.try_next().await? {
            self.written.new_chunks += u64::from(new.is_some());
            self.written.new_bytes += new.unwrap_or(0);
        }
        Ok(())
    }

    /// Publishes the snapshot, of a disk of `size` bytes; it is durable on return. That the same one is there already is no
    /// error: whoever was cut short may do it all again.
    ///
    /// # Errors
    /// A chunk lies beyond the size, another snapshot has the name, the session was silent for too long, or the store fails.
    pub async fn finish(mut self, name: &str, size: u64) -> Result<(Snapshot, Written), Error> {
        let published = self.publish(name, size).await;
        if let Err(error) = self.session.end().await {
            // They keep more than they need to, for a day.
            tracing::warn!(%error, snapshot = name, "removing the pins of a snapshot");
        }
        published
    }

    async fn publish(&mut self, name: &str, size: u64) -> Result<(Snapshot, Written), Error> {
        let path = snapshot::path(name)?;
        self.store_batch().await?;
        let chunks = size.div_ceil(CHUNK as u64);
        let beyond = self.changes.range(chunks..).find(|(_, id)| id.is_some());
        if let Some((index, _)) = beyond.filter(|_| size <= MAX_SIZE) {
            return Err(Error::Outside { index: *index });
        }
        if size > MAX_SIZE || self.base.as_ref().is_some_and(|base| base.snapshot().size > size) {
            return Err(Error::Outside { index: chunks });
        }
        let objects = self.repository.objects.clone();
        let root = self.base.as_ref().and_then(|base| base.snapshot().root);
        let changes: Vec<tree::Change> = self.changes.iter().map(|(index, id)| (*index, *id)).collect();
        let (root, made) = tree::change(&objects, root, &changes).await?;
        self.session
            .pin(made.iter().map(|(id, _)| Name::node(*id)))
            .await?;
        let store = |(id, bytes): (Id, Bytes)| {
            let objects = &objects;
            async move {
                let path = Name::node(id).path();
                if objects.exists(&path).await? {
                    return Ok(0);
                }
                let length = bytes.len() as u64;
                objects.put(&path, bytes).await?;
                Ok::<_, Error>(length)
            }
        };
        let mut stored = stream::iter(made).map(store).buffer_unordered(AT_ONCE);
        while let Some(bytes) = stored.try_next().await? {
            self.written.new_bytes += bytes;
        }
        drop(stored);
        let key = self.key.as_deref();
        let snapshot = Snapshot {
            size,
            root,
            key: key.map(|key| key.fingerprint().to_owned()),
        };
        if !self.session.is_alive().await? {
            return Err(Error::Expired);
        }
        if !objects.create(&path, snapshot.encode().into()).await?
            && self.repository.snapshot(name).await? != snapshot
        {
            return Err(Error::Exists(name.to_owned()));
        }
        Ok((snapshot, self.written))
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|source| Error::Store {
        doing: "hashing for",
        object: "a snapshot".to_owned(),
        source: object_store::Error::Generic {
            store: "runtime",
            source: source.into(),
        },
    })
}
