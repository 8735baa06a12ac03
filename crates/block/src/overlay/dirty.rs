//! The dirty map: which units of a volume may differ from the snapshot (or image) that it is told as changes of.
//!
//! ```text
//! offset 0     magic     "HEARTHDM"
//!        8     version   u32, 1
//!        12    reserved  zeros
//!        16    base      64 bytes, padded with zeros: the id of what the marks are relative to; empty: of zeros
//!        80    boot      64 bytes, padded with zeros: the boot of the host in which the marks were begun
//!        144   reserved  zeros
//!        508   checksum  u32, CRC-32 (ISO HDLC) of bytes 0 to 507
//! offset 4096  marks     one byte per unit of 512 KiB: 1 = dirty
//! ```
//!
//! A mark is a byte, so that two processes can set marks in one file without a lock: the one that serves the disk, and
//! the one that keeps its files. It is written before the first write to its unit and is not synced: it survives a
//! `kill -9`, and after a restart of the host the whole file says nothing. The header is of whoever keeps the files.

use std::io;

use super::map::{Geometry, Presence};
use crate::store::Store;

/// Bytes that one mark stands for; also the chunk of snapshots.
pub const UNIT: u64 = 512 << 10;

const MAGIC: &[u8; 8] = b"HEARTHDM";
const VERSION: u32 = 1;
const HEADER: usize = 512;
const FIELD: usize = 64;
const BASE_AT: usize = 16;
const BOOT_AT: usize = BASE_AT + FIELD;
const CHECKSUM_AT: usize = HEADER - 4;
pub(super) const MARKS_AT: u64 = 4096;
/// Marks that are read at once.
const WINDOW: u64 = 64 << 10;

/// What a dirty map's header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// At most 64 bytes.
    pub base: String,
    /// At most 64 bytes.
    pub boot: String,
}

/// Begins a dirty map in a file, for a volume with this chunk map: with no unit dirty, or with all that have a present
/// chunk. It takes the space of all its marks, so that a disk that is full later does not keep a guest from writing.
///
/// # Errors
/// The chunk map is none, the file cannot be written, or a text is too long.
pub fn create(file: &impl Store, about: &About, map: &impl Store, present_are_dirty: bool) -> io::Result<()> {
    let geometry = Geometry::read(map).map_err(io::Error::other)?;
    file.reserve(MARKS_AT + units(geometry.size))?;
    if present_are_dirty {
        let present = Presence::load(map, &geometry).map_err(io::Error::other)?;
        add(file, &present_units(&present, &geometry))?;
    }
    write_about(file, about)
}

/// What the header says; `None`: it is none, or damaged.
///
/// # Errors
/// The file cannot be read.
pub fn about(file: &impl Store) -> io::Result<Option<About>> {
    let mut header = [0; HEADER];
    match file.read_exact_at(&mut header, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let checksum = crc32fast::hash(&header[..CHECKSUM_AT]).to_le_bytes();
    if !header.starts_with(MAGIC)
        || header[8..12] != VERSION.to_le_bytes()
        || header[CHECKSUM_AT..] != checksum
    {
        return Ok(None);
    }
    let text = |at: usize| {
        let field = &header[at..at + FIELD];
        let end = field.iter().position(|&byte| byte == 0).unwrap_or(FIELD);
        String::from_utf8(field[..end].to_vec()).ok()
    };
    Ok(Option::zip(text(BASE_AT), text(BOOT_AT)).map(|(base, boot)| About { base, boot }))
}

/// Writes the header.
///
/// # Errors
/// The file cannot be written, or a text is too long.
pub fn write_about(file: &impl Store, about: &About) -> io::Result<()> {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    for (at, text) in [(BASE_AT, &about.base), (BOOT_AT, &about.boot)] {
        let field = header[at..at + FIELD].get_mut(..text.len());
        let too_long = || io::Error::new(io::ErrorKind::InvalidInput, format!("{text:?} has over 64 bytes"));
        field.ok_or_else(too_long)?.copy_from_slice(text.as_bytes());
    }
    let checksum = crc32fast::hash(&header[..CHECKSUM_AT]);
    header[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
    file.write_all_at(&header, 0)
}

/// The dirty units of a volume of `size` bytes, in order.
///
/// # Errors
/// The file cannot be read.
pub fn dirty_units(file: &impl Store, size: u64) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    each_dirty(file, size, |unit| found.push(unit))?;
    Ok(found)
}

/// How many units of a volume of `size` bytes are dirty.
///
/// # Errors
/// The file cannot be read.
pub fn count(file: &impl Store, size: u64) -> io::Result<u64> {
    let mut count = 0;
    each_dirty(file, size, |_| count += 1)?;
    Ok(count)
}

/// Marks units as dirty.
///
/// # Errors
/// The file cannot be written.
pub fn add(file: &impl Store, units: &[u64]) -> io::Result<()> {
    // Neighbours by one call.
    for run in units.chunk_by(|one, next| one + 1 == *next) {
        file.write_all_at(&vec![1; run.len()], MARKS_AT + run[0])?;
    }
    Ok(())
}

/// How many units a volume of `size` bytes has.
pub(super) fn units(size: u64) -> u64 {
    size.div_ceil(UNIT)
}

/// Marks the units that a range lies in.
pub(super) fn mark(file: &dyn Store, offset: u64, len: u64) -> io::Result<()> {
    let (first, end) = (offset / UNIT, (offset + len).div_ceil(UNIT));
    file.write_all_at(&vec![1; (end - first) as usize], MARKS_AT + first)
}

pub(super) fn each_dirty(
    file: &(impl Store + ?Sized),
    size: u64,
    mut found: impl FnMut(u64),
) -> io::Result<()> {
    // A file that is shorter has no marks there.
    let end = units(size).min(file.size()?.saturating_sub(MARKS_AT));
    let mut window = vec![0; end.min(WINDOW) as usize];
    for first in (0..end).step_by(WINDOW as usize) {
        let marks = &mut window[..WINDOW.min(end - first) as usize];
        file.read_exact_at(marks, MARKS_AT + first)?;
        let dirty = (first..).zip(marks.iter()).filter(|(_, mark)| **mark != 0);
        dirty.for_each(|(unit, _)| found(unit));
    }
    Ok(())
}

/// The units that a present chunk lies in, in order.
pub(super) fn present_units(present: &Presence, geometry: &Geometry) -> Vec<u64> {
    units_of(present.iter(geometry.chunks()), geometry)
}

/// The units that these chunks, which come in order, lie in.
pub(super) fn units_of(chunks: impl Iterator<Item = u64>, geometry: &Geometry) -> Vec<u64> {
    let mut found: Vec<u64> = Vec::new();
    for chunk in chunks {
        let start = chunk * geometry.chunk_size;
        let end = (start + geometry.chunk_size).min(geometry.size);
        let next = found.last().map_or(0, |last| last + 1);
        found.extend((start / UNIT).max(next)..end.div_ceil(UNIT));
    }
    found
}
