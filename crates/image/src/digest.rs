//! The digest of a disk, by which control plane and agents know that they have the same bytes.
//!
//! A disk is mostly holes, and a hole of any size costs nothing here. The digest is BLAKE3 in its key derivation mode
//! under [`CONTEXT`], over the disk's size in bytes (64 bits, little-endian) and then, for each chunk of 1 MiB that is
//! not all zero and in the order of the chunks, its number (64 bits, little-endian) and the BLAKE3 of its bytes. The last
//! chunk is shorter where the disk's size is no multiple of 1 MiB.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use crate::sparse::Extents;

const CONTEXT: &str =
    "Hearth 2026-11-26 digest of a disk: size, then number and BLAKE3 of each MiB that is not zero";
/// Bytes.
const CHUNK: u64 = 1 << 20;
/// What is read at a time.
const PIECE: usize = 1 << 18;

/// Makes the digest of a disk whose bytes come in order.
#[derive(Debug)]
pub struct DiskHasher {
    size: u64,
    /// Bytes that came.
    position: u64,
    disk: blake3::Hasher,
    /// Of the chunk that `position` is in: the first `hashed` bytes. The others up to `position` are zeros.
    chunk: blake3::Hasher,
    hashed: u64,
}

impl DiskHasher {
    /// For a disk of `size` bytes.
    #[must_use]
    pub fn new(size: u64) -> DiskHasher {
        let mut disk = blake3::Hasher::new_derive_key(CONTEXT);
        disk.update(&size.to_le_bytes());
        DiskHasher {
            size,
            position: 0,
            disk,
            chunk: blake3::Hasher::new(),
            hashed: 0,
        }
    }

    /// Takes the next bytes. Those beyond the disk's size make a digest that no disk has.
    pub fn update(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let room = CHUNK - self.position % CHUNK;
            let (part, rest) = data.split_at(data.len().min(room as usize));
            if is_zero(part) {
                self.zeros(part.len() as u64);
            } else {
                self.hash_zeros();
                self.chunk.update(part);
                self.hashed += part.len() as u64;
                self.advance(part.len() as u64);
            }
            data = rest;
        }
    }

    /// As [`DiskHasher::update`] with so many zeros, in constant time.
    pub fn zeros(&mut self, count: u64) {
        let room = CHUNK - self.position % CHUNK;
        self.advance(count.min(room));
        // Whole chunks of zeros leave nothing behind, and neither does the beginning of the last.
        self.position += count.saturating_sub(room);
    }

    /// The digest, in hex. Bytes that did not come are zeros.
    #[must_use]
    pub fn finish(mut self) -> String {
        self.zeros(self.size.saturating_sub(self.position));
        self.end_chunk();
        self.disk.finalize().to_hex().to_string()
    }

    /// By at most what is left of the chunk.
    fn advance(&mut self, count: u64) {
        self.position += count;
        if self.position.is_multiple_of(CHUNK) {
            self.end_chunk();
        }
    }

    /// The chunk that ends at `position`, or that `position` is in.
    fn end_chunk(&mut self) {
        if self.hashed == 0 {
            return;
        }
        let number = (self.position - 1) / CHUNK;
        let begin = number * CHUNK;
        fill(&mut self.chunk, self.position - begin - self.hashed);
        self.disk.update(&number.to_le_bytes());
        self.disk.update(self.chunk.finalize().as_bytes());
        self.chunk.reset();
        self.hashed = 0;
    }

    /// Those of the present chunk that are not hashed yet.
    fn hash_zeros(&mut self) {
        let behind = self.position % CHUNK - self.hashed;
        fill(&mut self.chunk, behind);
        self.hashed += behind;
    }
}

/// The digest of the first `size` bytes of a file. Holes are not read.
///
/// # Errors
/// The file cannot be read, or is shorter.
pub fn disk_digest(file: &File, size: u64) -> io::Result<String> {
    if file.metadata()?.len() < size {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut hasher = DiskHasher::new(size);
    let mut piece = vec![0; PIECE];
    for extent in Extents::of(file, size) {
        let extent = extent?;
        hasher.zeros(extent.start - hasher.position);
        while hasher.position < extent.end {
            let len = (extent.end - hasher.position).min(PIECE as u64) as usize;
            file.read_exact_at(&mut piece[..len], hasher.position)?;
            hasher.update(&piece[..len]);
        }
    }
    Ok(hasher.finish())
}

fn fill(hasher: &mut blake3::Hasher, mut count: u64) {
    static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
    while count > 0 {
        let piece = count.min(ZEROS.len() as u64);
        hasher.update(&ZEROS[..piece as usize]);
        count -= piece;
    }
}

/// Whether all bytes are zero: the first is, and each equals the one before it (one call of `memcmp`).
#[must_use]
pub fn is_zero(data: &[u8]) -> bool {
    match data {
        [0, rest @ ..] => rest == &data[..rest.len()],
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    /// The definition, as the module's documentation has it.
    fn defined(disk: &[u8]) -> String {
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        hasher.update(&(disk.len() as u64).to_le_bytes());
        for (number, chunk) in disk.chunks(CHUNK as usize).enumerate() {
            if chunk.iter().any(|byte| *byte != 0) {
                hasher.update(&(number as u64).to_le_bytes());
                hasher.update(blake3::hash(chunk).as_bytes());
            }
        }
        hasher.finalize().to_hex().to_string()
    }

    #[test]
    fn disks_that_differ_in_size_or_in_place_only_have_other_digests() {
        let mib = CHUNK as usize;
        let disks = [
            vec![],
            vec![0; 1],
            vec![0; mib],
            vec![0; mib + 1],
            vec![1; 1],
            vec![1; mib],
            [vec![0; mib], vec![1; mib]].concat(),
            [vec![1; mib], vec![0; mib]].concat(),
        ];
        let digests: std::collections::BTreeSet<_> = disks.iter().map(|disk| defined(disk)).collect();
        assert_eq!(digests.len(), disks.len());
    }

    #[test]
    fn a_disk_of_16_tib_of_zeros_costs_nothing() {
        let begin = Instant::now();
        let mut hasher = DiskHasher::new(16 << 40);
        hasher.zeros(5 << 40);
        hasher.update(b"one");
        let streamed = hasher.finish();
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 40).unwrap();
        assert_eq!(
            disk_digest(&file, 1 << 40).unwrap(),
            DiskHasher::new(1 << 40).finish()
        );
        assert_ne!(streamed, DiskHasher::new(16 << 40).finish());
        assert!(begin.elapsed() < Duration::from_secs(2));
        assert_eq!(
            disk_digest(&file, (1 << 40) + 1).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn however_the_bytes_come_the_digest_is_as_defined(
            size in 0u64..4 << 20,
            writes in proptest::collection::vec((0u64..4 << 20, 1usize..700_000, 0u8..2), 0..4),
            cuts in proptest::collection::vec(1usize..900_000, 1..6),
        ) {
            let file = tempfile::tempfile().unwrap();
            for (offset, length, byte) in writes {
                file.write_all_at(&vec![byte; length], offset).unwrap();
            }
            file.set_len(size).unwrap();
            let mut disk = vec![0; size as usize];
            file.read_exact_at(&mut disk, 0).unwrap();
            let expected = defined(&disk);
            prop_assert_eq!(disk_digest(&file, size).unwrap(), expected.clone());
            let mut hasher = DiskHasher::new(size);
            let mut rest = &disk[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (part, behind) = rest.split_at(rest.len().min(*cut));
                if part.iter().all(|byte| *byte == 0) {
                    hasher.zeros(part.len() as u64);
                } else {
                    hasher.update(part);
                }
                rest = behind;
            }
            prop_assert_eq!(hasher.finish(), expected);
        }
    }
}
