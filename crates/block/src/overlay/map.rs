//! The chunk map: its file format, and its picture in memory.
//!
//! ```text
//! offset 0     magic       "HEARTHOV"
//!        8     version     u32, 1
//!        12    reserved    u32, 0
//!        16    size        u64, bytes of the virtual disk
//!        24    base_size   u64, bytes of the base; beyond it an absent chunk reads as zeros
//!        32    chunk_size  u64, bytes, a power of two
//!        40    reserved    zeros
//!        508   checksum    u32, CRC-32 (ISO HDLC) of bytes 0 to 507
//! offset 4096  states      one bit per chunk, least significant first: 1 = present in the data file
//! ```
//!
//! Numbers are little-endian. A bit goes from 0 to 1 and never back, and only after the chunk's data is durable;
//! so a power cut that tears a write of the map leaves a map that is merely older. An overlay grows when the header,
//! which is one sector, names a larger size; data file and map have that length before, so files that are longer than
//! the header says are those of an overlay that was about to grow.

use std::collections::BTreeMap;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::{CreateError, OpenError, Part};
use crate::SECTOR;
use crate::store::Store;

const MAGIC: &[u8; 8] = b"HEARTHOV";
const VERSION: u32 = 1;
const HEADER: usize = 512;
pub(super) const STATES_OFFSET: u64 = 4096;
/// The map is rewritten in sectors: the unit that storage does not tear.
const STATES_UNIT: usize = SECTOR as usize;
const CHUNKS_PER_UNIT: u64 = STATES_UNIT as u64 * 8;
/// EC2's largest volume.
const MAX_SIZE: u64 = 64 << 40;

/// The sizes that make an overlay. Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) size: u64,
    pub(crate) base_size: u64,
    pub(crate) chunk_size: u64,
}

impl Geometry {
    pub(crate) fn check(&self) -> Result<(), CreateError> {
        let Geometry {
            size,
            base_size,
            chunk_size,
        } = *self;
        if size == 0 || size % SECTOR != 0 || size > MAX_SIZE {
            return Err(CreateError::Size { size });
        }
        if base_size > size {
            return Err(CreateError::BaseLarger { size, base_size });
        }
        if !chunk_size.is_power_of_two() || !(4 << 10..=16 << 20).contains(&chunk_size) {
            return Err(CreateError::ChunkSize { chunk_size });
        }
        Ok(())
    }

    pub(crate) fn chunks(&self) -> u64 {
        self.size.div_ceil(self.chunk_size)
    }

    /// Bytes of the map file.
    pub(crate) fn map_len(&self) -> u64 {
        STATES_OFFSET + self.chunks().div_ceil(CHUNKS_PER_UNIT) * STATES_UNIT as u64
    }

    pub(crate) fn encode(&self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        header[16..24].copy_from_slice(&self.size.to_le_bytes());
        header[24..32].copy_from_slice(&self.base_size.to_le_bytes());
        header[32..40].copy_from_slice(&self.chunk_size.to_le_bytes());
        let checksum = crc32fast::hash(&header[..HEADER - 4]);
        header[HEADER - 4..].copy_from_slice(&checksum.to_le_bytes());
        header
    }

    /// Writes the header. The map and the data file must have the lengths that go with it, durably.
    pub(crate) fn write(&self, map: &(impl Store + ?Sized)) -> io::Result<()> {
        map.write_all_at(&self.encode(), 0)
    }

    fn decode(header: &[u8; HEADER]) -> Result<Geometry, OpenError> {
        if &header[..8] != MAGIC {
            return Err(OpenError::Magic);
        }
        // The version comes first: a newer format may keep its checksum elsewhere.
        let found = le_u32(header, 8);
        if found != VERSION {
            return Err(OpenError::Version {
                found,
                known: VERSION,
            });
        }
        let (found, computed) = (le_u32(header, HEADER - 4), crc32fast::hash(&header[..HEADER - 4]));
        if found != computed {
            return Err(OpenError::Checksum { found, computed });
        }
        let geometry = Geometry {
            size: le_u64(header, 16),
            base_size: le_u64(header, 24),
            chunk_size: le_u64(header, 32),
        };
        let Geometry {
            size,
            base_size,
            chunk_size,
        } = geometry;
        geometry.check().map_err(|_| OpenError::Geometry {
            size,
            base_size,
            chunk_size,
        })?;
        Ok(geometry)
    }

    pub(crate) fn read(map: &(impl Store + ?Sized)) -> Result<Geometry, OpenError> {
        let mut header = [0; HEADER];
        map.read_exact_at(&mut header, 0)
            .map_err(|source| match source.kind() {
                io::ErrorKind::UnexpectedEof => OpenError::Magic,
                _ => OpenError::Io {
                    doing: "reading",
                    part: Part::Map,
                    source,
                },
            })?;
        let geometry = Geometry::decode(&header)?;
        check_len(map, Part::Map, geometry.map_len())?;
        Ok(geometry)
    }
}

/// Refuses a file that is shorter than the map says.
pub(crate) fn check_len(file: &(impl Store + ?Sized), part: Part, expected: u64) -> Result<(), OpenError> {
    let found = file.size().map_err(|source| OpenError::Io {
        doing: "asking for the size of",
        part,
        source,
    })?;
    if found >= expected {
        Ok(())
    } else {
        Err(OpenError::Length {
            part,
            found,
            expected,
        })
    }
}

/// As [`check_len`], but an odd tail shorter than a sector is no part of the base's size: an image file may have one. No
/// base is one of no bytes.
pub(crate) fn check_base(size: io::Result<u64>, expected: u64) -> Result<(), OpenError> {
    let size = size.map_err(|source| OpenError::Io {
        doing: "asking for the size of",
        part: Part::Base,
        source,
    })?;
    if size == expected || size - size % SECTOR == expected {
        return Ok(());
    }
    Err(OpenError::Length {
        part: Part::Base,
        found: size,
        expected,
    })
}

fn le_u32(header: &[u8; HEADER], at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&header[at..at + 4]);
    u32::from_le_bytes(bytes)
}

fn le_u64(header: &[u8; HEADER], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&header[at..at + 8]);
    u64::from_le_bytes(bytes)
}

/// Which chunks the data file holds, durable or not, 64 a word. Read without a lock.
pub(crate) struct Presence {
    /// Those that there were when the overlay was opened.
    words: Box<[AtomicU64]>,
    /// Those that came since: 64 words, 128, and so on, so that none ever moves.
    grown: [OnceLock<Box<[AtomicU64]>>; GROWN_PARTS],
}

/// Words of the first part that an overlay grows by, as a power of two.
const GROWN_EXP: u32 = 6;
/// Enough for the largest overlay of the smallest chunks.
const GROWN_PARTS: usize = 23;

impl Presence {
    /// Of no chunk.
    pub(super) fn empty(geometry: &Geometry) -> Presence {
        Presence::of((0..geometry.chunks().div_ceil(64)).map(|_| 0))
    }

    fn of(words: impl Iterator<Item = u64>) -> Presence {
        Presence {
            words: words.map(AtomicU64::new).collect(),
            grown: [const { OnceLock::new() }; GROWN_PARTS],
        }
    }

    /// Reads all states; the time and memory are one bit per chunk.
    pub(crate) fn load(map: &(impl Store + ?Sized), geometry: &Geometry) -> Result<Presence, OpenError> {
        let mut words = Vec::new();
        let (mut at, end) = (STATES_OFFSET, geometry.map_len());
        let mut window = vec![0; 64 << 10];
        while at < end {
            let len = window.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
            map.read_exact_at(&mut window[..len], at)
                .map_err(|source| OpenError::Io {
                    doing: "reading",
                    part: Part::Map,
                    source,
                })?;
            let (eights, _) = window[..len].as_chunks::<8>();
            words.extend(eights.iter().map(|word| u64::from_le_bytes(*word)));
            at += len as u64;
        }
        Ok(Presence::of(words.into_iter()))
    }

    /// Makes room for the chunks of a larger overlay. They are absent.
    pub(crate) fn grow(&self, geometry: &Geometry) {
        let Some(last) = self.place((geometry.chunks() - 1) / 64) else {
            return;
        };
        for (part, words) in self.grown.iter().enumerate().take(last.0 + 1) {
            words.get_or_init(|| {
                (0..1 << (part as u32 + GROWN_EXP))
                    .map(|_| AtomicU64::new(0))
                    .collect()
            });
        }
    }

    /// The part, and the place in it, of a word that has come since.
    fn place(&self, word: u64) -> Option<(usize, usize)> {
        let nth = (word as usize).checked_sub(self.words.len())? + (1 << GROWN_EXP);
        let part = nth.ilog2() - GROWN_EXP;
        Some((part as usize, nth - (1 << (part + GROWN_EXP))))
    }

    /// True orders after the writes that filled the chunk.
    pub(crate) fn contains(&self, chunk: u64) -> bool {
        let word = self.word(chunk);
        word.is_some_and(|word| word.load(Ordering::Acquire) & (1 << (chunk % 64)) != 0)
    }

    /// Publishes a chunk that was just filled. False: it was there.
    pub(crate) fn insert(&self, chunk: u64) -> bool {
        let bit = 1 << (chunk % 64);
        self.word(chunk)
            .is_some_and(|word| word.fetch_or(bit, Ordering::Release) & bit == 0)
    }

    /// Takes what the map file says now of a chunk and of its neighbours, and answers how many of them are new.
    pub(crate) fn look_again(&self, map: &impl Store, geometry: &Geometry, chunk: u64) -> io::Result<u64> {
        let Some(word) = self.word(chunk) else {
            return Ok(0);
        };
        let mut bytes = [0; 8];
        map.read_exact_at(&mut bytes, STATES_OFFSET + chunk / 64 * 8)?;
        let behind = (chunk / 64 + 1) * 64;
        let beyond = behind.saturating_sub(geometry.chunks()).min(63);
        let found = u64::from_le_bytes(bytes) & (u64::MAX >> beyond);
        let known = word.fetch_or(found, Ordering::AcqRel);
        Ok(u64::from((found & !known).count_ones()))
    }

    pub(crate) fn count(&self) -> u64 {
        self.words()
            .map(|word| u64::from(word.load(Ordering::Relaxed).count_ones()))
            .sum()
    }

    /// Makes all chunks absent. Nobody inserts meanwhile.
    pub(super) fn clear(&self) {
        self.words().for_each(|word| word.store(0, Ordering::Release));
    }

    /// The chunks below `end` that are there, in order.
    pub(super) fn iter(&self, end: u64) -> impl Iterator<Item = u64> {
        let words = (0..).step_by(64).zip(self.words());
        let bits = words.flat_map(|(first, word)| {
            let mut left = word.load(Ordering::Acquire);
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| u64::from(left.trailing_zeros()))?;
                left &= left - 1;
                Some(first + bit)
            })
        });
        bits.take_while(move |chunk| *chunk < end)
    }

    /// As the map file has them.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in self.words() {
            bytes.extend_from_slice(&word.load(Ordering::Acquire).to_le_bytes());
        }
        bytes
    }

    fn words(&self) -> impl Iterator<Item = &AtomicU64> {
        let grown = self.grown.iter().filter_map(OnceLock::get).flatten();
        self.words.iter().chain(grown)
    }

    /// There is one for each chunk: callers derive it from an offset that was checked against the disk's size, which
    /// grows after this.
    fn word(&self, chunk: u64) -> Option<&AtomicU64> {
        let word = chunk / 64;
        match self.place(word) {
            None => self.words.get(word as usize),
            Some((part, at)) => self.grown.get(part)?.get()?.get(at),
        }
    }
}

/// Sets the bits of `chunks` in the map file. Their data must be durable. The caller syncs, and lets nobody
/// else write the map meanwhile.
pub(crate) fn write_states(map: &impl Store, chunks: &[u64]) -> io::Result<()> {
    let mut units: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for chunk in chunks {
        units
            .entry(chunk / CHUNKS_PER_UNIT)
            .or_default()
            .push(chunk % CHUNKS_PER_UNIT);
    }
    for (unit, bits) in units {
        // The picture in memory holds younger bits too, whose data is not durable: start from the file's.
        let offset = STATES_OFFSET + unit * STATES_UNIT as u64;
        let mut states = [0; STATES_UNIT];
        map.read_exact_at(&mut states, offset)?;
        for bit in bits {
            states[(bit / 8) as usize] |= 1 << (bit % 8);
        }
        map.write_all_at(&states, offset)?;
    }
    Ok(())
}
