//! Fuzz targets: hostile chunk maps. `scripts/fuzz` runs them; the tests here, on the corpus only.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::overlay::Overlay;
use crate::{Disk, Store};

/// A name, and what is done with an input.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: &[Target] = &[("overlay_map", overlay_map)];

/// Bytes. Larger disks only take longer.
const LARGEST: u64 = 1 << 20;
/// Of the header that the checksum at its end is about.
const CHECKED: usize = 508;

/// An overlay whose map is hostile, with a right checksum, and a data file and a base of the sizes that it names.
fn overlay_map(input: &[u8]) {
    let mut map = input.to_vec();
    if let Some((header, rest)) = map.split_at_mut_checked(CHECKED)
        && let Some(checksum) = rest.first_chunk_mut::<4>()
    {
        *checksum = crc32fast::hash(header).to_le_bytes();
    }
    let size = |at: usize| {
        let field = input.get(at..at + 8).and_then(|bytes| bytes.first_chunk());
        field.map_or(0, |bytes| u64::from_le_bytes(*bytes)).min(LARGEST)
    };
    let zeroes = |len: u64| Memory::new(vec![0; usize::try_from(len).unwrap_or(0)]);
    if let Ok(disk) = Overlay::open(zeroes(size(16)), Memory::new(map), zeroes(size(24))) {
        let (mut sector, last) = ([0; 512], disk.size().saturating_sub(512));
        for at in [0, last / 2, last] {
            disk.read_at(&mut sector, at).unwrap();
            disk.write_at(&[7; 512], at).unwrap();
            disk.read_at(&mut sector, at).unwrap();
            assert_eq!(sector, [7; 512]);
        }
        disk.flush().unwrap();
        disk.read_at(&mut sector, disk.size()).unwrap_err();
        disk.read_at(&mut sector, u64::MAX).unwrap_err();
    }
}

/// A file that does not leave the process.
struct Memory(Mutex<Vec<u8>>);

impl Memory {
    fn new(bytes: Vec<u8>) -> Self {
        Self(Mutex::new(bytes))
    }

    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn range(offset: u64, len: usize) -> Option<std::ops::Range<usize>> {
    let start = usize::try_from(offset).ok()?;
    Some(start..start.checked_add(len)?)
}

impl Store for Memory {
    fn size(&self) -> io::Result<u64> {
        Ok(self.bytes().len() as u64)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = self.bytes();
        let found = range(offset, buf.len()).and_then(|range| bytes.get(range));
        buf.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut bytes = self.bytes();
        let space = range(offset, buf.len()).and_then(|range| bytes.get_mut(range));
        space.ok_or(io::ErrorKind::WriteZero)?.copy_from_slice(buf);
        Ok(())
    }

    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        self.zero(offset, len, true)
    }

    fn zero(&self, offset: u64, len: u64, _unmap: bool) -> io::Result<()> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let mut bytes = self.bytes();
        let space = range(offset, len).and_then(|range| bytes.get_mut(range));
        space.ok_or(io::ErrorKind::WriteZero)?.fill(0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let mut bytes = self.bytes();
        let longer = len.max(bytes.len());
        bytes.resize(longer, 0);
        Ok(())
    }

    fn try_lock(&self) -> io::Result<bool> {
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn the_corpus_passes() {
        for (name, target) in super::TARGETS {
            let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../../fuzz/corpus")
                .join(name);
            for file in std::fs::read_dir(corpus).unwrap() {
                target(&std::fs::read(file.unwrap().path()).unwrap());
            }
        }
    }
}
