//! Where a file is not a hole.

use std::fs::File;
use std::io;
use std::ops::Range;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// The ranges of a file's first `size` bytes that are no holes, in order. A file system that knows no holes answers one
/// range with everything.
pub struct Extents<'a> {
    file: &'a File,
    position: u64,
    size: u64,
}

impl<'a> Extents<'a> {
    #[must_use]
    pub fn of(file: &'a File, size: u64) -> Extents<'a> {
        Extents {
            file,
            position: 0,
            size,
        }
    }

    fn next_extent(&self) -> io::Result<Option<Range<u64>>> {
        let start = match seek(self.file, SeekFrom::Data(self.position)) {
            Ok(start) => start,
            // Holes up to the end.
            Err(Errno::NXIO) => return Ok(None),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some(self.position..self.size)),
            Err(e) => return Err(e.into()),
        };
        let end = seek(self.file, SeekFrom::Hole(start))?.min(self.size);
        Ok((start < end).then_some(start..end))
    }
}

impl Iterator for Extents<'_> {
    type Item = io::Result<Range<u64>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.position >= self.size {
            return None;
        }
        let found = self.next_extent().transpose();
        self.position = match &found {
            Some(Ok(extent)) => extent.end,
            _ => self.size,
        };
        found
    }
}
