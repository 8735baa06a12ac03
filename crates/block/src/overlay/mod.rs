//! A volume of its own on a base that many share: a sparse data file and a chunk map over a read-only base.
//!
//! The disk is cut into chunks. An absent chunk is read from the base; the first write to it fills it once, by
//! writing the whole chunk (base and new bytes) to its place in the data file. From then on the data file alone
//! serves it. A base may still be on its way ([`crate::base`]): then the disk's methods wait for what they need of it. When
//! every chunk is present the data file is a plain raw disk.
//!
//! **Crash rule.** After a `kill -9` or a power cut everything that was flushed is there, and each sector of the
//! rest is either old or new, never another chunk's. That holds because a chunk's bit reaches the map
//! file only after its data is durable ([`flush`](crate::Disk::flush): sync data, write bits, sync map). Until then
//! presence lives in memory; a crash forgets it, the chunk reverts to the base, and whatever bytes were left in the data file
//! are never trusted: the next write fills the chunk again.
//!
//! **Without a base** a disk is blank at first: an absent chunk reads as zeros. The files are the same, so that whoever
//! reads a chunk map (snapshots, copies) needs to know one format.
//!
//! **Encryption.** What lies in the data file of an [encrypted](Overlay::encrypted) overlay, and in the side file of its
//! snapshots, is ciphertext ([`cipher`](crate::cipher)); chunk map and dirty map are plain. Its base may be encrypted under
//! another key, or plain.
//!
//! **Growth.** Whoever makes the data file longer may have an open overlay take on the new size, by
//! [`refresh_size`](crate::Disk::refresh_size). It never shrinks.
//!
//! **Snapshots.** A [tracked](Overlay::tracked) overlay notes which units were written ([`dirty`]), and can be
//! [frozen](crate::Disk::freeze): what it held then can be read while it is written ([`frozen`]).

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::SECTOR;
use crate::base::Base;
use crate::cipher::Cipher;
use crate::sectors::Sectors;
use crate::store::Store;

pub mod dirty;
mod disk;
mod error;
pub mod frozen;
pub(crate) mod map;
#[cfg(test)]
pub(crate) mod tests;
mod tracker;

pub use error::{CreateError, OpenError, Part};
use frozen::Side;
use map::{Geometry, Presence, check_base, check_len};
use tracker::Tracker;

/// The smallest chunk, in bytes, that [`create`] takes. Smaller ones make the first write to a chunk cheaper and
/// the map larger; see `examples/chunk_sizes.rs` for both in figures.
const SMALL_CHUNK: u64 = 16 << 10;
/// Bytes. More would be felt at each launch, when the map is read, and in the monitor's memory.
const MAP_LIMIT: u64 = 2 << 20;

/// The numbers of an overlay's [`crate::Disk::backings`].
const DATA: usize = 0;
const BASE: usize = 1;

/// Fills of different chunks run side by side when they fall on different locks.
const FILL_LOCKS: usize = 32;

/// What a chunk map says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverlayInfo {
    /// Bytes of the virtual disk.
    pub size: u64,
    /// Bytes.
    pub base_size: u64,
    /// Bytes.
    pub chunk_size: u64,
    /// How many chunks the data file holds durably.
    pub present_chunks: u64,
    /// Bytes that are read from the base.
    pub shared: u64,
}

/// Lays an empty overlay of `size` bytes into two new files, in a time that does not depend on any size. Both
/// files are durable on return; their directory entries are the caller's to sync.
///
/// # Errors
/// The sizes are impossible together, or a file cannot be written.
pub fn create(data: &File, map: &File, base_size: u64, size: u64) -> Result<(), CreateError> {
    create_chunked(data, map, base_size, size, default_chunk_size(size))
}

/// Bytes: 16 KiB up to a volume of 256 GiB, 64 KiB at 1 TiB.
fn default_chunk_size(size: u64) -> u64 {
    (size / (MAP_LIMIT * 8)).next_power_of_two().max(SMALL_CHUNK)
}

/// [`create`] with chunks of `chunk_size` bytes, a power of two from 4 KiB to 16 MiB.
///
/// # Errors
/// As [`create`].
pub fn create_chunked(
    data: &File,
    map: &File,
    base_size: u64,
    size: u64,
    chunk_size: u64,
) -> Result<(), CreateError> {
    let geometry = Geometry {
        size,
        base_size,
        chunk_size,
    };
    geometry.check()?;
    let io = |doing, part| move |source| CreateError::Io { doing, part, source };
    data.set_len(size)
        .map_err(io("setting the size of", Part::Data))?;
    // All of it now: on a disk that filled up later, what was written could otherwise not be flushed.
    Store::reserve(map, geometry.map_len()).map_err(io("reserving space for", Part::Map))?;
    geometry.write(map).map_err(io("writing", Part::Map))?;
    data.sync_all().map_err(io("syncing", Part::Data))?;
    map.sync_all().map_err(io("syncing", Part::Map))
}

/// A sparse data file and a chunk map over a read-only base, or over none. Dropping it flushes nothing.
pub struct Overlay<F = File> {
    data: Sectors<F>,
    map: F,
    base: Option<Base<F>>,
    /// As the map's header has it, but for the size.
    opened: Geometry,
    /// Bytes of the virtual disk. It only grows.
    size: AtomicU64,
    present: Presence,
    /// Absent: nobody wants to know what is written.
    tracker: Option<Tracker>,
    /// Held while a chunk is filled or made ready, by chunk number. Presence is checked again under the lock.
    fills: [Mutex<()>; FILL_LOCKS],
    /// Chunks that are present, but not in the map file.
    unmapped: Mutex<Vec<u64>>,
    /// Held through a flush: a second one must not return before the first has written the bits it took.
    flushing: Mutex<()>,
    /// A sync failed. The kernel may have dropped the unwritten pages, and a second sync would succeed without
    /// them; so no later flush may succeed.
    broken: AtomicBool,
}

impl Overlay {
    /// Reads the header of a chunk map and counts.
    ///
    /// # Errors
    /// The file cannot be read, or is no chunk map.
    pub fn inspect(map: &File) -> Result<OverlayInfo, OpenError> {
        let geometry = Geometry::read(map)?;
        let present = Presence::load(map, &geometry)?;
        let Geometry {
            size,
            base_size,
            chunk_size,
        } = geometry;
        // The last chunk of the base may go beyond it.
        let of_base = |chunk| chunk_size.min(base_size - chunk * chunk_size);
        let filled_of_base: u64 = present.iter(base_size.div_ceil(chunk_size)).map(of_base).sum();
        Ok(OverlayInfo {
            size,
            base_size,
            chunk_size,
            present_chunks: present.count(),
            shared: base_size - filled_of_base,
        })
    }
}

impl<F: Store> Overlay<F> {
    /// Opens what [`create`] made; without a base where `base_size` was 0. The map is locked (`flock`) until every duplicate of
    /// its descriptor is closed, so that two monitors never write one overlay.
    ///
    /// # Errors
    /// A file cannot be read, is damaged, does not belong to the others, or is open elsewhere.
    pub fn open(data: F, map: F, base: impl Into<Option<F>>) -> Result<Overlay<F>, OpenError> {
        Overlay::over(data, map, base.into().map(Base::whole))
    }

    /// As [`Overlay::open`], with a base that may be there in part.
    ///
    /// # Errors
    /// As [`Overlay::open`].
    pub fn over(data: F, map: F, base: Option<Base<F>>) -> Result<Overlay<F>, OpenError> {
        let locked = map.try_lock().map_err(|source| OpenError::Io {
            doing: "locking",
            part: Part::Map,
            source,
        })?;
        if !locked {
            return Err(OpenError::Busy);
        }
        let geometry = Geometry::read(&map)?;
        check_len(&data, Part::Data, geometry.size)?;
        check_base(base.as_ref().map_or(Ok(0), Base::size), geometry.base_size)?;
        let present = Presence::load(&map, &geometry)?;
        Ok(Overlay {
            data: Sectors::plain(data),
            map,
            base,
            size: AtomicU64::new(geometry.size),
            opened: geometry,
            present,
            tracker: None,
            fills: std::array::from_fn(|_| Mutex::new(())),
            unmapped: Mutex::new(Vec::new()),
            flushing: Mutex::new(()),
            broken: AtomicBool::new(false),
        })
    }

    /// The same overlay, whose data file has all sectors under `cipher`.
    #[must_use]
    pub fn encrypted(mut self, cipher: Arc<Cipher>) -> Overlay<F> {
        self.data.cipher = Some(cipher);
        self
    }

    /// The same overlay, which notes in a [dirty map](dirty) what is written. With `side`, the name and the file of a point
    /// in time that another process has begun.
    ///
    /// # Errors
    /// A file cannot be read, or `side` is of no point in time.
    pub fn tracked(
        mut self,
        dirty: Box<dyn Store>,
        side: Option<(String, Box<dyn Store>)>,
    ) -> Result<Overlay<F>, OpenError> {
        let side = match side {
            Some((name, file)) => Some((name, Side::open(file)?)),
            None => None,
        };
        let tracker = Tracker::new(dirty, side, &self.present, &self.geometry());
        self.tracker = Some(tracker.map_err(|source| OpenError::Io {
            doing: "reading",
            part: Part::Dirty,
            source,
        })?);
        Ok(self)
    }

    fn geometry(&self) -> Geometry {
        Geometry {
            // After it the presence of its chunks.
            size: self.size.load(Ordering::Acquire),
            ..self.opened
        }
    }

    /// Takes on the size of a data file that was made longer. A crash at any point leaves an overlay of the old size
    /// or of the new one.
    fn grow(&self, found: u64) -> io::Result<u64> {
        let _flushing = self.begin_flush()?;
        let before = self.geometry();
        let geometry = Geometry {
            size: found - found % SECTOR,
            ..before
        };
        if geometry.size < before.size {
            let size = before.size;
            return Err(invalid(format!(
                "its data file has {found} bytes and it has {size}: an overlay cannot shrink"
            )));
        }
        if geometry.size == before.size {
            return Ok(before.size);
        }
        geometry.check().map_err(|error| invalid(error.to_string()))?;
        self.sync(&self.data.file)?;
        self.map.reserve(geometry.map_len())?;
        self.sync(&self.map)?;
        geometry.write(&self.map)?;
        self.sync(&self.map)?;
        self.present.grow(&geometry);
        if let Some(tracker) = &self.tracker {
            tracker.grow(before.size, &geometry)?;
        }
        self.size.store(geometry.size, Ordering::Release);
        Ok(geometry.size)
    }

    /// Keeps others from writing the map, and refuses if what was written may be lost.
    fn begin_flush(&self) -> io::Result<MutexGuard<'_, ()>> {
        let flushing = lock(&self.flushing);
        if self.broken.load(Ordering::Relaxed) {
            return Err(io::Error::other(
                "an earlier flush failed, and what it covered may be lost",
            ));
        }
        Ok(flushing)
    }

    /// Bytes of `len` at `offset` that lie in the same chunk, or in neighbours that are alike in `chunks`. Returns whether
    /// they are there too.
    fn run(&self, chunks: &Presence, offset: u64, len: u64) -> (u64, bool) {
        let chunk_size = self.opened.chunk_size;
        let end = offset + len;
        let mut chunk = offset / chunk_size;
        let is_there = chunks.contains(chunk);
        let mut run_end = end.min((chunk + 1) * chunk_size);
        while run_end < end {
            chunk += 1;
            if chunks.contains(chunk) != is_there {
                break;
            }
            run_end = end.min((chunk + 1) * chunk_size);
        }
        (run_end - offset, is_there)
    }

    /// The chunks that are written in place.
    fn ready(&self) -> &Presence {
        match &self.tracker {
            Some(tracker) => &tracker.ready,
            None => &self.present,
        }
    }

    /// As [`Self::run`] of those that are written in place, but others come one at a time.
    fn writable_run(&self, offset: u64, len: u64) -> (u64, bool) {
        let (run, ready) = self.run(self.ready(), offset, len);
        let in_chunk = self.opened.chunk_size - offset % self.opened.chunk_size;
        (if ready { run } else { run.min(in_chunk) }, ready)
    }

    /// Has a chunk tracked that is about to be written, under its lock.
    fn prepare(&self, chunk: u64) -> io::Result<()> {
        match &self.tracker {
            Some(tracker) => tracker.prepare(chunk, &self.geometry(), &self.data.file),
            None => Ok(()),
        }
    }

    /// After a chunk that is present was written, under its lock.
    fn release(&self, chunk: u64) {
        if let Some(tracker) = &self.tracker {
            tracker.release(chunk, &self.present, &self.geometry());
        }
    }

    /// Reads from the base; beyond its end there are zeros.
    fn read_base(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let left = self.opened.base_size.saturating_sub(offset);
        let (inside, beyond) = buf.split_at_mut(buf.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
        beyond.fill(0);
        match &self.base {
            Some(base) if !inside.is_empty() => base.read_exact_at(inside, offset),
            _ => Ok(()),
        }
    }

    /// Writes `buf`, which lies in one chunk, and makes the chunk present and ready.
    fn fill(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let Geometry { size, chunk_size, .. } = self.geometry();
        let chunk = offset / chunk_size;
        let _filling = lock(&self.fills[chunk as usize % FILL_LOCKS]);
        self.prepare(chunk)?;
        if self.present.contains(chunk) {
            self.data.write_all_at(buf, offset)?;
            self.release(chunk);
            return Ok(());
        }
        let start = chunk * chunk_size;
        let len = chunk_size.min(size - start) as usize;
        if buf.len() == len {
            self.data.write_all_at(buf, start)?;
        } else {
            let mut whole = vec![0; len];
            let (head, rest) = whole.split_at_mut((offset - start) as usize);
            let (middle, tail) = rest.split_at_mut(buf.len());
            self.read_base(head, start)?;
            middle.copy_from_slice(buf);
            self.read_base(tail, offset + buf.len() as u64)?;
            self.data.write_all_at(&whole, start)?;
        }
        self.publish(chunk);
        self.release(chunk);
        Ok(())
    }

    /// Makes zeros of a range that lies in one chunk, and the chunk present and ready.
    fn fill_zeros(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        let Geometry {
            size,
            chunk_size,
            base_size,
        } = self.geometry();
        let chunk = offset / chunk_size;
        let start = chunk * chunk_size;
        if len < chunk_size.min(size - start) {
            return self.fill(&vec![0; len as usize], offset);
        }
        let _filling = lock(&self.fills[chunk as usize % FILL_LOCKS]);
        let present = self.present.contains(chunk);
        if !present && start >= base_size {
            // Zeros already.
            return Ok(());
        }
        self.prepare(chunk)?;
        self.data.zero(start, len, unmap)?;
        if !present {
            self.publish(chunk);
        }
        self.release(chunk);
        Ok(())
    }

    /// Gives the space of a range back that lies in one chunk, which is present.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let chunk = offset / self.opened.chunk_size;
        let _filling = lock(&self.fills[chunk as usize % FILL_LOCKS]);
        self.prepare(chunk)?;
        self.data.punch_hole(offset, len)?;
        self.release(chunk);
        Ok(())
    }

    /// Makes a chunk present whose data were just written, under its fill lock.
    fn publish(&self, chunk: u64) {
        // First the list, then the bit: once a write to this chunk can return, a flush finds it here.
        lock(&self.unmapped).push(chunk);
        self.present.insert(chunk);
    }

    fn sync(&self, file: &F) -> io::Result<()> {
        file.sync_data()
            .inspect_err(|_| self.broken.store(true, Ordering::Relaxed))
    }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

/// No code panics while it holds one of these locks, and none guards an invariant that a panic could break.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
