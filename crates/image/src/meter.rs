//! What looking into one disk may cost: one budget for its partition tables, all of its file systems and their files.

use std::cell::RefCell;
use std::io::{self, Read, Seek, SeekFrom};
use std::rc::Rc;

use crate::ReadSeek;

/// Bytes that a read costs at least: many small reads are work too.
const LEAST: u64 = 512;

/// A disk that several file systems look into by turns.
pub(crate) type SharedDisk = Rc<RefCell<MeteredDisk>>;

/// A disk whose reads are paid for. Once the budget is used up, every read fails.
pub(crate) struct MeteredDisk {
    disk: Box<dyn ReadSeek>,
    budget: u64,
    left: u64,
    exhausted: bool,
}

impl MeteredDisk {
    /// `budget` is in bytes.
    pub(crate) fn new(disk: impl ReadSeek + 'static, budget: u64) -> MeteredDisk {
        MeteredDisk {
            disk: Box::new(disk),
            budget,
            left: budget,
            exhausted: false,
        }
    }

    /// Takes `bytes` from the budget, for work that reads nothing (a file's holes are filled and parsed too).
    ///
    /// # Errors
    /// The budget does not hold them.
    pub(crate) fn charge(&mut self, bytes: u64) -> io::Result<()> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                self.left = 0;
                self.exhausted = true;
                Err(io::Error::other("the disk's read budget is used up"))
            }
        }
    }

    /// The whole budget in bytes, if something was refused because of it.
    pub(crate) fn exhausted(&self) -> Option<u64> {
        self.exhausted.then_some(self.budget)
    }
}

impl Read for MeteredDisk {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.charge(LEAST.max(buf.len() as u64))?;
        self.disk.read(buf)
    }
}

impl Seek for MeteredDisk {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.disk.seek(position)
    }
}
