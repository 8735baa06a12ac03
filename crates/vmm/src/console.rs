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
//! There is one writer. It writes the byte before the count, so that a reader, or the next writer after a
//! kill, finds a whole ring at any moment. It uses `pwrite`, not a mapping: a file that someone cuts short
//! must not kill the machine with SIGBUS.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

/// Bytes that are kept.
pub const CAPACITY: usize = 65536;

const MAGIC: &[u8; 8] = b"HEARTHCR";
const VERSION: u32 = 1;
const HEADER_SIZE: u64 = 32;
const WRITTEN_OFFSET: u64 = 16;

/// The writer's end.
pub struct Ring {
    file: File,
    written: u64,
}

impl Ring {
    /// Goes on in a ring that is there already; anything else in the file is replaced by an empty ring.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn open(file: File) -> io::Result<Self> {
        let written = match read_header(&file)? {
            Some(written) => written,
            None => {
                file.set_len(0)?;
                file.set_len(HEADER_SIZE + CAPACITY as u64)?;
                file.write_all_at(&header(0), 0)?;
                0
            }
        };
        Ok(Self { file, written })
    }
}

impl Write for Ring {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let at = (self.written % CAPACITY as u64) as usize;
        let len = bytes.len().min(CAPACITY - at);
        self.file.write_all_at(&bytes[..len], HEADER_SIZE + at as u64)?;
        self.written += len as u64;
        self.file
            .write_all_at(&self.written.to_le_bytes(), WRITTEN_OFFSET)?;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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
            ring.write_all(text.as_bytes()).unwrap();
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
        Ring::open(file).unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn the_last_bytes_come_back_in_order(chunks in prop::collection::vec(0_usize..30_000, 0..8)) {
            let file = file();
            let mut ring = Ring::open(file.try_clone().unwrap()).unwrap();
            let mut all = Vec::new();
            for len in chunks {
                let chunk: Vec<u8> = (0..len).map(|n| ((all.len() + n) / 7) as u8).collect();
                ring.write_all(&chunk).unwrap();
                all.extend(chunk);
            }
            let tail = all.split_off(all.len().saturating_sub(CAPACITY));
            prop_assert_eq!(read(&file).unwrap(), tail);
        }
    }
}
