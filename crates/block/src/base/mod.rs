//! What an overlay begins with: a file that many disks read and none writes, which may be there in part.
//!
//! A base in part is a sparse file and a map of the chunks that have come, in the format of an overlay's map and with chunks
//! of [`CHUNK`] bytes. One process fills it ([`Filling`]); any number of others read it. A bit is in the map only after its
//! chunk is durable, so that the map is right after a `kill -9` and a power cut. A reader that misses a chunk looks at the
//! map again, and then asks whoever opened the base to [`Fetch`] it. When all have come the base costs a reader one look at
//! a flag.
//!
//! The file of an encrypted base is ciphertext ([`crate::cipher`]); its map is plain. Whoever fills it and whoever reads it are
//! given its key.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use crate::Backing;
use crate::cipher::Cipher;
use crate::overlay::OpenError;
use crate::overlay::map::{Geometry, Presence};
use crate::sectors::Sectors;
use crate::store::Store;

mod filling;
#[cfg(test)]
mod tests;

pub use filling::Filling;

/// Bytes of a chunk of a base; the last one may have less.
pub const CHUNK: u64 = 512 << 10;

/// Called once, with why a chunk does not come.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Brings the chunks of one base.
pub trait Fetch: Send + Sync {
    /// Returns at once, and has `done` called, from whatever thread, when the chunk is in the base's file. That may take as
    /// long as it will; an error is for good.
    fn fetch(&self, chunk: u64, done: Done);
}

/// A base that is open for reading.
pub struct Base<F = File> {
    file: Sectors<F>,
    /// Of a base that was not whole when it was opened.
    coming: Option<Arc<Coming<F>>>,
}

/// What is known of the chunks of a base in part.
struct Coming<F> {
    map: F,
    geometry: Geometry,
    present: Presence,
    missing: AtomicU64,
    fetch: Arc<dyn Fetch>,
}

impl<F: Store> Base<F> {
    /// A base that is all there.
    pub fn whole(file: F) -> Self {
        Self {
            file: Sectors::plain(file),
            coming: None,
        }
    }

    /// A base that [`Filling`] fills. `map` is only read.
    ///
    /// # Errors
    /// The map cannot be read, or is damaged.
    pub fn in_part(file: F, map: F, fetch: Arc<dyn Fetch>) -> Result<Self, OpenError> {
        let geometry = open_map(&map)?;
        let present = Presence::load(&map, &geometry)?;
        let missing = (0..geometry.chunks()).filter(|chunk| !present.contains(*chunk));
        Ok(Self {
            file: Sectors::plain(file),
            coming: Some(Arc::new(Coming {
                missing: AtomicU64::new(missing.count() as u64),
                map,
                geometry,
                present,
                fetch,
            })),
        })
    }

    /// The same base, whose file has all sectors under `cipher`.
    #[must_use]
    pub fn encrypted(mut self, cipher: Arc<Cipher>) -> Self {
        self.file.cipher = Some(cipher);
        self
    }

    pub(crate) fn cipher(&self) -> Option<&Arc<Cipher>> {
        self.file.cipher.as_ref()
    }

    pub(crate) fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    pub(crate) fn backing(&self) -> Option<&Backing> {
        self.file.backing()
    }

    /// Something of it may not have come.
    pub(crate) fn is_coming(&self) -> bool {
        self.coming().is_some()
    }

    /// The first chunk of a range that has not come.
    pub(crate) fn missing(&self, offset: u64, len: u64) -> Option<u64> {
        let coming = self.coming()?;
        let chunks = offset / CHUNK..(offset + len).div_ceil(CHUNK);
        chunks.into_iter().find(|chunk| !coming.has(*chunk))
    }

    /// Bytes from `offset` on, at most `len`, that have come, or that have not: which, comes along.
    pub(crate) fn run(&self, offset: u64, len: u64) -> (u64, bool) {
        match self.missing(offset, len) {
            None => (len, true),
            Some(chunk) if chunk * CHUNK > offset => (chunk * CHUNK - offset, true),
            Some(chunk) => (len.min((chunk + 1) * CHUNK - offset), false),
        }
    }

    /// Has a chunk brought.
    pub(crate) fn fetch(&self, chunk: u64, done: Done) {
        let Some(coming) = &self.coming else {
            return done(Ok(()));
        };
        let knows = Arc::clone(coming);
        let come = move |result: io::Result<()>| {
            if result.is_ok() {
                knows.note(chunk);
            }
            done(result);
        };
        coming.fetch.fetch(chunk, Box::new(come));
    }

    /// Reads what lies inside of the base, and waits for what has not come of it.
    ///
    /// # Errors
    /// It does not come, or cannot be read.
    pub fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        while let Some(chunk) = self.missing(offset, buf.len() as u64) {
            let (done, come) = mpsc::sync_channel(1);
            let tell = move |result| {
                // Whoever waits for it does so until it is told.
                let _ = done.send(result);
            };
            self.fetch(chunk, Box::new(tell));
            let gone = || io::Error::other("whoever brings the chunks of the disk's base has ended");
            come.recv().map_err(|_| gone())??;
        }
        self.file.read_exact_at(buf, offset)
    }

    /// Unless all has come.
    fn coming(&self) -> Option<&Coming<F>> {
        let coming = self.coming.as_deref()?;
        (coming.missing.load(Ordering::Acquire) > 0).then_some(coming)
    }
}

impl<F: Store> Coming<F> {
    fn has(&self, chunk: u64) -> bool {
        if self.present.contains(chunk) {
            return true;
        }
        // What cannot be read is asked for, and whoever brings it finds the fault.
        let news = self
            .present
            .look_again(&self.map, &self.geometry, chunk)
            .unwrap_or(0);
        self.missing.fetch_sub(news, Ordering::AcqRel);
        self.present.contains(chunk)
    }

    fn note(&self, chunk: u64) {
        if chunk < self.geometry.chunks() && self.present.insert(chunk) {
            self.missing.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// # Errors
/// It is no map of a base.
fn open_map(map: &impl Store) -> Result<Geometry, OpenError> {
    let geometry = Geometry::read(map)?;
    let Geometry {
        size,
        base_size,
        chunk_size,
    } = geometry;
    if base_size != 0 || chunk_size != CHUNK {
        return Err(OpenError::Geometry {
            size,
            base_size,
            chunk_size,
        });
    }
    Ok(geometry)
}
