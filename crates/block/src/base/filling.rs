//! The one writer of a base in part.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{CHUNK, open_map};
use crate::SECTOR;
use crate::cipher::Cipher;
use crate::overlay::map::{Geometry, Presence, check_len, write_states};
use crate::overlay::{CreateError, OpenError, Part};
use crate::sectors::Sectors;
use crate::store::Store;

/// A base that is being filled. All methods may be called at the same time. Dropping it settles nothing.
pub struct Filling<F = File> {
    data: Sectors<F>,
    map: F,
    /// Bytes.
    size: u64,
    present: Presence,
    missing: AtomicU64,
    /// Chunks that have come, but are not in the map file.
    unmapped: Mutex<Vec<u64>>,
    settling: Mutex<()>,
    /// A sync failed, and what it covered may be lost: nothing more gets into the map.
    broken: AtomicBool,
}

impl Filling {
    /// Lays an empty base of `size` bytes into two new files, in a time that does not depend on the size. Both are durable
    /// on return; their directory entries are the caller's to sync.
    ///
    /// # Errors
    /// The size is impossible, or a file cannot be written.
    pub fn create(data: &File, map: &File, size: u64) -> Result<(), CreateError> {
        let geometry = Geometry {
            size: size.next_multiple_of(SECTOR),
            base_size: 0,
            chunk_size: CHUNK,
        };
        geometry.check()?;
        let io = |doing, part| move |source| CreateError::Io { doing, part, source };
        data.set_len(size)
            .map_err(io("setting the size of", Part::Base))?;
        Store::reserve(map, geometry.map_len()).map_err(io("reserving space for", Part::Map))?;
        geometry.write(map).map_err(io("writing", Part::Map))?;
        data.sync_all().map_err(io("syncing", Part::Base))?;
        map.sync_all().map_err(io("syncing", Part::Map))
    }
}

impl<F: Store> Filling<F> {
    /// Opens what [`Filling::create`] made. Nobody else may fill it.
    ///
    /// # Errors
    /// A file cannot be read, is damaged, or does not belong to the other.
    pub fn open(data: F, map: F, size: u64) -> Result<Self, OpenError> {
        let geometry = open_map(&map)?;
        if geometry.size != size.next_multiple_of(SECTOR) {
            return Err(OpenError::Length {
                part: Part::Base,
                found: size,
                expected: geometry.size,
            });
        }
        check_len(&data, Part::Base, size)?;
        let present = Presence::load(&map, &geometry)?;
        Ok(Self {
            missing: AtomicU64::new(
                (0..geometry.chunks())
                    .filter(|chunk| !present.contains(*chunk))
                    .count() as u64,
            ),
            data: Sectors::plain(data),
            map,
            size,
            present,
            unmapped: Mutex::default(),
            settling: Mutex::new(()),
            broken: AtomicBool::new(false),
        })
    }

    /// The same base, which takes what comes under `cipher` into its file.
    ///
    /// # Errors
    /// The base has a part of a sector at its end (`InvalidInput`): XTS encrypts whole ones.
    pub fn encrypted(mut self, cipher: Arc<Cipher>) -> io::Result<Self> {
        if !self.size.is_multiple_of(SECTOR) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "a base of {} bytes cannot lie encrypted: it is no multiple of {SECTOR}",
                    self.size
                ),
            ));
        }
        self.data.cipher = Some(cipher);
        Ok(self)
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn chunks(&self) -> u64 {
        self.size.div_ceil(CHUNK)
    }

    /// How many chunks have not come.
    pub fn missing(&self) -> u64 {
        self.missing.load(Ordering::Acquire)
    }

    pub fn has(&self, chunk: u64) -> bool {
        self.present.contains(chunk)
    }

    /// The first chunk from `chunk` on that has not come.
    pub fn next_missing(&self, chunk: u64) -> Option<u64> {
        (chunk..self.chunks()).find(|chunk| !self.has(*chunk))
    }

    /// Bytes of a chunk that there is.
    pub fn len_of(&self, chunk: u64) -> u64 {
        CHUNK.min(self.size.saturating_sub(chunk * CHUNK))
    }

    /// Takes a chunk that has come; what `data` does not reach is zeros, as the file is where nothing was written. A chunk
    /// that is there stays.
    ///
    /// # Errors
    /// There is no such chunk (`InvalidInput`), or it cannot be written.
    pub fn put(&self, chunk: u64, data: &[u8]) -> io::Result<()> {
        if chunk >= self.chunks() || data.len() as u64 > self.len_of(chunk) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "chunk {chunk} of {} bytes does not belong to a base of {} bytes",
                    data.len(),
                    self.size
                ),
            ));
        }
        if self.has(chunk) {
            return Ok(());
        }
        if self.data.cipher.is_none() || data.len().is_multiple_of(SECTOR as usize) {
            self.data.write_all_at(data, chunk * CHUNK)?;
        } else {
            // What is in the file there is of nobody.
            let mut whole = data.to_vec();
            whole.resize(data.len().next_multiple_of(SECTOR as usize), 0);
            self.data.write_all_at(&whole, chunk * CHUNK)?;
        }
        // First the list, then the bit: what is waited for is settled by whoever settles next.
        lock(&self.unmapped).push(chunk);
        if self.present.insert(chunk) {
            self.missing.fetch_sub(1, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Makes what has come durable, and then the map say so.
    ///
    /// # Errors
    /// A file cannot be written or synced. After a failed sync it fails for ever: a new [`Filling`] fetches anew what the map
    /// does not have.
    pub fn settle(&self) -> io::Result<()> {
        let _settling = lock(&self.settling);
        if self.broken.load(Ordering::Relaxed) {
            return Err(io::Error::other(
                "an earlier sync of the base failed, and what it covered may be lost",
            ));
        }
        // Taken before the sync: what comes during it is not covered by it.
        let chunks = std::mem::take(&mut *lock(&self.unmapped));
        if chunks.is_empty() {
            return Ok(());
        }
        let settled = self
            .sync(&self.data.file)
            .and_then(|()| write_states(&self.map, &chunks))
            .and_then(|()| self.sync(&self.map));
        if settled.is_err() {
            lock(&self.unmapped).extend(chunks);
        }
        settled
    }

    fn sync(&self, file: &F) -> io::Result<()> {
        file.sync_data()
            .inspect_err(|_| self.broken.store(true, Ordering::Relaxed))
    }
}

/// No code panics while it holds one of these locks, and none guards an invariant that a panic could break.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
