//! A [`Disk`] as `std::io::Read` and `Seek`.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use crate::Disk;

/// Read-ahead. Big enough to make a sequential scan cheap, small enough to be no burden when hopping about.
const WINDOW: usize = 128 << 10;

/// Reads a disk through a window of its own; a write to the disk after the window was read is not seen in it.
pub struct DiskReader {
    disk: Arc<dyn Disk>,
    position: u64,
    window: Vec<u8>,
    /// The disk offset of the window's first byte.
    window_start: u64,
}

impl DiskReader {
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>) -> DiskReader {
        DiskReader {
            disk,
            position: 0,
            window: Vec::new(),
            window_start: 0,
        }
    }

    /// What the window holds from the current position on.
    fn buffered(&self) -> &[u8] {
        self.position
            .checked_sub(self.window_start)
            .and_then(|skip| self.window.get(usize::try_from(skip).ok()?..))
            .unwrap_or_default()
    }

    fn advance(&mut self, len: usize) -> usize {
        self.position += len as u64;
        len
    }
}

impl Read for DiskReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.disk.size().saturating_sub(self.position);
        let wanted = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        if self.buffered().is_empty() {
            if wanted >= WINDOW {
                self.disk.read_at(&mut buf[..wanted], self.position)?;
                return Ok(self.advance(wanted));
            }
            let len = WINDOW.min(usize::try_from(left).unwrap_or(WINDOW));
            let mut window = std::mem::take(&mut self.window);
            window.resize(len, 0);
            self.disk.read_at(&mut window, self.position)?;
            self.window = window;
            self.window_start = self.position;
        }
        let have = self.buffered();
        let len = have.len().min(wanted);
        buf[..len].copy_from_slice(&have[..len]);
        Ok(self.advance(len))
    }
}

impl Seek for DiskReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(by) => self.disk.size().checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        self.position = target.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "seek before the disk's first byte")
        })?;
        Ok(self.position)
    }
}
