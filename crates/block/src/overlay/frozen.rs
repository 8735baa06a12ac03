//! A point in time of a volume that goes on being written: what the disk held when it was frozen.
//!
//! ```text
//! offset 0     the chunk map as it was then (see `map`), with a byte at 512: 1 = broken
//! then, from a multiple of 4096 on, one byte per chunk: 1 = its contents were copied
//! then, from a multiple of 4096 on, copied chunks, each at its place
//! ```
//!
//! While the disk is frozen, whoever is about to write to a chunk that the map has copies it first: its contents, then
//! the mark, then the write. Whoever reads the point in time reads the chunk from the data file, then the mark, and the
//! copy where there is one: so it needs no lock. Chunks that the map does not have are the base's. Nothing is synced: a
//! `kill -9` loses nothing, and a restart of the host loses the point in time.
//!
//! Copies are made of what lies in the data file: those of an encrypted disk are ciphertext, and no key is needed for them.
//!
//! The header is written last: a file without it is of no point in time. If a copy cannot be made, for the disk is full,
//! the file is marked as broken and the write goes ahead: the point in time is lost, and not the guest's data.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::dirty::{UNIT, present_units, units_of};
use super::error::{OpenError, Part};
use super::map::{Geometry, Presence, STATES_OFFSET};
use crate::SECTOR;
use crate::cipher::Cipher;
use crate::store::Store;

const BROKEN_AT: u64 = SECTOR;
const ALIGNMENT: u64 = 4096;

/// Where what is in the file.
#[derive(Debug, Clone, Copy)]
struct Layout {
    geometry: Geometry,
    marks_at: u64,
    copies_at: u64,
}

impl Layout {
    fn new(geometry: Geometry) -> Layout {
        let marks_at = geometry.map_len().next_multiple_of(ALIGNMENT);
        Layout {
            geometry,
            marks_at,
            copies_at: (marks_at + geometry.chunks()).next_multiple_of(ALIGNMENT),
        }
    }

    fn len(&self) -> u64 {
        self.copies_at + self.geometry.size
    }
}

/// The file, for whoever serves the disk.
pub(super) struct Side {
    file: Box<dyn Store>,
    layout: Layout,
    broken: AtomicBool,
}

impl Side {
    /// Freezes a disk that nobody writes to.
    pub(super) fn lay(file: Box<dyn Store>, geometry: Geometry, present: &Presence) -> io::Result<Side> {
        let layout = Layout::new(geometry);
        // Of no point in time until the end, and with space for the broken mark.
        file.write_all_at(&[0; STATES_OFFSET as usize], 0)?;
        let mut states = present.to_bytes();
        states.resize((geometry.map_len() - STATES_OFFSET) as usize, 0);
        file.write_all_at(&states, STATES_OFFSET)?;
        if file.size()? < layout.len() {
            file.write_all_at(&[0], layout.len() - 1)?;
        }
        geometry.write(&*file)?;
        Ok(Side {
            file,
            layout,
            broken: AtomicBool::new(false),
        })
    }

    /// Opens what another process has laid.
    pub(super) fn open(file: Box<dyn Store>) -> Result<Side, OpenError> {
        let layout = read_layout(&*file)?;
        let broken = is_broken(&*file).map_err(read_error)?;
        Ok(Side {
            file,
            layout,
            broken: AtomicBool::new(broken),
        })
    }

    /// Copies a chunk that is about to be written for the first time. The caller holds its lock.
    ///
    /// # Errors
    /// The copy cannot be made, and that cannot be noted either.
    pub(super) fn keep(&self, chunk: u64, data: &impl Store) -> io::Result<()> {
        if self.broken.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.copy(chunk, data).or_else(|_| {
            self.file.write_all_at(&[1], BROKEN_AT)?;
            self.broken.store(true, Ordering::Relaxed);
            Ok(())
        })
    }

    fn copy(&self, chunk: u64, data: &impl Store) -> io::Result<()> {
        let Geometry { size, chunk_size, .. } = self.layout.geometry;
        let start = chunk * chunk_size;
        let (mut state, mut mark) = ([0], [0]);
        if start >= size {
            return Ok(());
        }
        self.file.read_exact_at(&mut state, STATES_OFFSET + chunk / 8)?;
        if state[0] & 1 << (chunk % 8) == 0 {
            return Ok(());
        }
        let mark_at = self.layout.marks_at + chunk;
        self.file.read_exact_at(&mut mark, mark_at)?;
        if mark != [0] {
            return Ok(());
        }
        let mut contents = vec![0; chunk_size.min(size - start) as usize];
        data.read_exact_at(&mut contents, start)?;
        self.file.write_all_at(&contents, self.layout.copies_at + start)?;
        self.file.write_all_at(&[1], mark_at)
    }
}

/// Freezes a volume that no process serves, at the size of its data file.
///
/// # Errors
/// The chunk map is none, or the file cannot be written.
pub fn freeze(file: impl Store + 'static, data: &impl Store, map: &impl Store) -> Result<(), OpenError> {
    let known = Geometry::read(map)?;
    let present = Presence::load(map, &known)?;
    let found = data.size().map_err(|source| OpenError::Io {
        doing: "asking for the size of",
        part: Part::Data,
        source,
    })?;
    let geometry = Geometry {
        size: known.size.max(found - found % SECTOR),
        ..known
    };
    Side::lay(Box::new(file), geometry, &present).map_err(|source| OpenError::Io {
        doing: "writing",
        part: Part::Frozen,
        source,
    })?;
    Ok(())
}

/// Whether a file is of a point in time.
///
/// # Errors
/// It cannot be read.
pub fn is_frozen(file: &impl Store) -> Result<bool, OpenError> {
    match read_layout(file) {
        Ok(_) => Ok(true),
        Err(OpenError::Magic) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Why a unit of a point in time could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the contents of the volume at that time could not be kept: the host's disk is full, or fails")]
    Broken,
    #[error("reading the volume as it was")]
    Io(#[from] io::Error),
}

/// Reads the base of a disk at an offset, and waits for what is not there yet.
pub type ReadBase = Box<dyn Fn(&mut [u8], u64) -> io::Result<()> + Send + Sync>;

/// The disk as it was, for whoever stores it. It is read while another process writes to the disk.
pub struct Frozen {
    file: Box<dyn Store>,
    layout: Layout,
    present: Presence,
    data: Box<dyn Store>,
    base: Option<ReadBase>,
    cipher: Option<Arc<Cipher>>,
}

impl Frozen {
    /// Opens a point in time of the volume with this data file and base.
    ///
    /// # Errors
    /// The file is of no point in time, or cannot be read.
    pub fn open(
        file: Box<dyn Store>,
        data: Box<dyn Store>,
        base: Option<ReadBase>,
    ) -> Result<Frozen, OpenError> {
        let layout = read_layout(&*file)?;
        Ok(Frozen {
            present: Presence::load(&*file, &layout.geometry)?,
            file,
            layout,
            data,
            base,
            cipher: None,
        })
    }

    /// The same disk, whose data file and copies are under `cipher`.
    #[must_use]
    pub fn encrypted(self, cipher: Arc<Cipher>) -> Frozen {
        let cipher = Some(cipher);
        Frozen { cipher, ..self }
    }

    /// Bytes of the disk at that time.
    pub fn size(&self) -> u64 {
        self.layout.geometry.size
    }

    /// Bytes of the base.
    pub fn base_size(&self) -> u64 {
        self.layout.geometry.base_size
    }

    /// The units that were written since the volume was laid, in order.
    pub fn present_units(&self) -> Vec<u64> {
        present_units(&self.present, &self.layout.geometry)
    }

    /// The units with chunks that a chunk map does not have: a `kill -9` can make them the base's again.
    ///
    /// # Errors
    /// It is no chunk map.
    pub fn units_beyond(&self, map: &impl Store) -> Result<Vec<u64>, OpenError> {
        let geometry = Geometry::read(map)?;
        let mapped = Presence::load(map, &geometry)?;
        let here = self.present.iter(self.layout.geometry.chunks());
        let beyond = here.filter(|chunk| !mapped.contains(*chunk));
        Ok(units_of(beyond, &self.layout.geometry))
    }

    /// Bytes of a unit: fewer of the disk's last.
    fn unit_len(&self, unit: u64) -> usize {
        UNIT.min(self.size().saturating_sub(unit * UNIT)) as usize
    }

    /// What a unit held.
    ///
    /// # Errors
    /// A file cannot be read, or the contents were not kept.
    pub fn read_unit(&self, unit: u64) -> Result<Vec<u8>, ReadError> {
        let chunk_size = self.layout.geometry.chunk_size;
        let start = unit * UNIT;
        let mut contents = vec![0; self.unit_len(unit)];
        let end = start + contents.len() as u64;
        let mut pieces = Vec::new();
        let mut at = start;
        while at < end {
            let chunk = at / chunk_size;
            let len = (end - at).min((chunk + 1) * chunk_size - at);
            pieces.push((chunk, at, len));
            at += len;
        }
        for run in pieces.chunk_by(|one, next| self.present.contains(one.0) == self.present.contains(next.0))
        {
            let (chunk, from, _) = run[0];
            let len: u64 = run.iter().map(|piece| piece.2).sum();
            let run = &mut contents[(from - start) as usize..][..len as usize];
            match self.present.contains(chunk) {
                true => self.data.read_exact_at(run, from)?,
                false => self.read_base(run, from)?,
            }
        }
        // After the data.
        let first = start / chunk_size;
        let mut marks = vec![0; pieces.len()];
        self.file
            .read_exact_at(&mut marks, self.layout.marks_at + first)?;
        for (chunk, from, len) in pieces {
            let held = &mut contents[(from - start) as usize..][..len as usize];
            if !self.present.contains(chunk) {
                continue;
            }
            if marks[(chunk - first) as usize] != 0 {
                self.file.read_exact_at(held, self.layout.copies_at + from)?;
            }
            if let Some(cipher) = &self.cipher {
                cipher.decrypt(held, from / SECTOR)?;
            }
        }
        match is_broken(&*self.file)? {
            true => Err(ReadError::Broken),
            false => Ok(contents),
        }
    }

    fn read_base(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let left = self.base_size().saturating_sub(offset);
        let inside = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        match &self.base {
            Some(read) if inside > 0 => read(&mut buf[..inside], offset),
            _ => Ok(()),
        }
    }
}

fn read_layout(file: &(impl Store + ?Sized)) -> Result<Layout, OpenError> {
    Geometry::read(file).map(Layout::new)
}

fn is_broken(file: &(impl Store + ?Sized)) -> io::Result<bool> {
    let mut mark = [0];
    file.read_exact_at(&mut mark, BROKEN_AT)?;
    Ok(mark != [0])
}

fn read_error(source: io::Error) -> OpenError {
    OpenError::Io {
        doing: "reading",
        part: Part::Frozen,
        source,
    }
}
