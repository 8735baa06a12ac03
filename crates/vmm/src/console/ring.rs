//! The console ring: the last 64 KiB of serial output, in a file that outlives the monitor.
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 8 | magic `HEARTHCR` |
//! | 8 | 4 | version, 1, little-endian as all numbers here |
//! | 12 | 4 | capacity of the ring, 65536 |
//! | 16 | 8 | bytes ever written |
//! | 24 | 8 | zero |
//! | 32 | 65536 | the ring: byte number n is at offset n modulo the capacity |
//!
//! There is one writer. It writes the bytes before the count, so that a reader, or the next writer after a
//! kill, finds a whole ring at any moment. It uses `pwrite`, not a mapping: a file that someone cuts short
//! must not kill the machine with SIGBUS.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, fallocate};

/// Bytes that are kept.
pub const CAPACITY: usize = 65536;

const MAGIC: &[u8; 8] = b"HEARTHCR";
const VERSION: u32 = 1;
const HEADER_SIZE: u64 = 32;
const SIZE: u64 = HEADER_SIZE + CAPACITY as u64;
/// More than any guest prints: a writer begins anew rather than count on from there, and so never overflows.
const WRITTEN_LIMIT: u64 = 1 << 62;
const WRITTEN_OFFSET: u64 = 16;

/// The writer's end.
pub(super) struct Ring {
    file: File,
    written: u64,
}

impl Ring {
    /// Goes on in a ring that is there already; anything else in the file is replaced by an empty ring.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub(super) fn open(file: File) -> io::Result<Self> {
        let written = match read_header(&file)? {
            Some(written) if written <= WRITTEN_LIMIT => written,
            _ => {
                file.set_len(0)?;
                file.set_len(SIZE)?;
                file.write_all_at(&header(0), 0)?;
                0
            }
        };
        // A disk that fills up later does not lose the console then. Not every file system can promise it.
        let _ = fallocate(&file, FallocateFlags::empty(), 0, SIZE);
        Ok(Self { file, written })
    }

    /// The number of the oldest byte that is kept.
    pub(super) fn oldest(&self) -> u64 {
        self.written.saturating_sub(CAPACITY as u64)
    }

    /// Counts bytes that nobody has any more; at least [`CAPACITY`] bytes are appended next.
    pub(super) fn skip(&mut self, bytes: u64) {
        self.written += bytes;
    }

    /// Writes `bytes`, of which the ring keeps what it has room for.
    ///
    /// # Errors
    /// The file cannot be written; the bytes count all the same.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let from = self.written;
        self.written += bytes.len() as u64;
        let kept = &bytes[bytes.len().saturating_sub(CAPACITY)..];
        let at = offset(from + (bytes.len() - kept.len()) as u64);
        let (to_the_end, rest) = kept.split_at(kept.len().min(CAPACITY - at as usize));
        self.file.write_all_at(to_the_end, HEADER_SIZE + at)?;
        self.file.write_all_at(rest, HEADER_SIZE)?;
        self.file
            .write_all_at(&self.written.to_le_bytes(), WRITTEN_OFFSET)
    }

    /// Copies output from byte number `position` on, and says how much; 0 at the end. Pieces may be short.
    pub(super) fn read_at(&self, position: u64, buffer: &mut [u8]) -> usize {
        let at = offset(position);
        let left = self.written.saturating_sub(position).min(CAPACITY as u64 - at) as usize;
        let len = left.min(buffer.len());
        let buffer = &mut buffer[..len];
        match self.file.read_at(buffer, HEADER_SIZE + at) {
            Ok(len) if len > 0 => len,
            // Someone cut the file short, or its disk fails: the bytes are gone, their places are not.
            _ => {
                buffer.fill(b'?');
                len
            }
        }
    }
}

/// Where in the ring byte number `position` is.
fn offset(position: u64) -> u64 {
    position % CAPACITY as u64
}

/// The last 64 KiB of output, oldest byte first. The guest chose the bytes; whatever the file is, the
/// result is at most that long. A file that is no ring (yet) holds no output.
///
/// # Errors
/// The file cannot be read.
pub fn read(file: &File) -> io::Result<Vec<u8>> {
    let Some(before) = read_header(file)? else {
        return Ok(Vec::new());
    };
    let mut ring = vec![0; CAPACITY];
    let mut filled = 0;
    while filled < CAPACITY {
        match file.read_at(&mut ring[filled..], HEADER_SIZE + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    // What was written meanwhile has overwritten the oldest bytes: they are not there any more.
    let after = read_header(file)?.unwrap_or(before);
    let overwritten = after.saturating_sub(before).min(CAPACITY as u64) as usize;
    if before < CAPACITY as u64 {
        ring.truncate(before as usize);
        return Ok(ring);
    }
    ring.rotate_left((before % CAPACITY as u64) as usize);
    Ok(ring.split_off(overwritten))
}

fn header(written: u64) -> [u8; HEADER_SIZE as usize] {
    let mut header = [0; HEADER_SIZE as usize];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&(CAPACITY as u32).to_le_bytes());
    header[16..24].copy_from_slice(&written.to_le_bytes());
    header
}

/// Bytes ever written, if the file begins as a ring does.
fn read_header(file: &File) -> io::Result<Option<u64>> {
    let mut found = [0; HEADER_SIZE as usize];
    match file.read_exact_at(&mut found, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    let mut written = [0; 8];
    written.copy_from_slice(&found[16..24]);
    let written = u64::from_le_bytes(written);
    Ok((found == header(written)).then_some(written))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file() -> File {
        tempfile::tempfile().unwrap()
    }

    #[test]
    fn a_new_writer_goes_on_where_the_last_one_stopped() {
        let file = file();
        for text in ["first", " second"] {
            let mut ring = Ring::open(file.try_clone().unwrap()).unwrap();
            ring.append(text.as_bytes()).unwrap();
        }
        assert_eq!(read(&file).unwrap(), b"first second");
    }

    #[test]
    fn strange_files_hold_no_output() {
        let file = file();
        assert!(read(&file).unwrap().is_empty());
        file.write_all_at(&[0xff; 1000], 0).unwrap();
        assert!(read(&file).unwrap().is_empty());
        let mut wild = header(u64::MAX).to_vec();
        wild.extend(b"cut short");
        file.write_all_at(&wild, 0).unwrap();
        assert!(read(&file).unwrap().len() <= CAPACITY);
        let mut ring = Ring::open(file.try_clone().unwrap()).unwrap();
        ring.append(b"begun anew").unwrap();
        assert_eq!(read(&file).unwrap(), b"begun anew");
        file.set_len(0).unwrap();
        assert_eq!(ring.read_at(0, &mut [0; 100]), 10);
    }

    #[test]
    fn a_writer_may_pass_the_count_it_would_not_begin_at() {
        let file = file();
        file.write_all_at(&header(WRITTEN_LIMIT), 0).unwrap();
        let mut ring = Ring::open(file.try_clone().unwrap()).unwrap();
        ring.append(b"more").unwrap();
        assert!(read(&file).unwrap().ends_with(b"more"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn the_last_bytes_come_back_in_order(chunks in prop::collection::vec(0_usize..70_000, 0..8)) {
            let file = file();
            let mut ring = Ring::open(file.try_clone().unwrap()).unwrap();
            let mut all = Vec::new();
            for len in chunks {
                let chunk: Vec<u8> = (0..len).map(|n| ((all.len() + n) / 7) as u8).collect();
                ring.append(&chunk).unwrap();
                all.extend(chunk);
            }
            let mut position = ring.oldest();
            let mut told: Vec<u8> = Vec::new();
            let mut piece = [0; 5000];
            loop {
                let len = ring.read_at(position, &mut piece);
                if len == 0 {
                    break;
                }
                told.extend(&piece[..len]);
                position += len as u64;
            }
            let tail = all.split_off(all.len().saturating_sub(CAPACITY));
            prop_assert_eq!(&told, &tail);
            prop_assert_eq!(read(&file).unwrap(), tail);
        }
    }
}
