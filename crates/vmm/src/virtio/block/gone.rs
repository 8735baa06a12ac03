//! What a guest has in the place of a disk that was taken away from it: the same disk, of which each request fails.
//!
//! A function that just vanished would leave the driver's requests without an answer, and whoever waits for them would wait
//! for ever: Linux does not complete them either when it removes the device. So they fail, and the guest is asked to let
//! the device go.

use std::io;

use hearth_block::Disk;

/// A disk that fails.
pub struct Gone {
    size: u64,
    can_discard: bool,
}

impl Gone {
    /// In the place of `disk`: to the driver it has the same features.
    #[must_use]
    pub fn instead_of(disk: &dyn Disk) -> Self {
        Self {
            size: disk.size(),
            can_discard: disk.can_discard(),
        }
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the disk was taken away")
}

impl Disk for Gone {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
        Err(gone())
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(gone())
    }

    fn flush(&self) -> io::Result<()> {
        Err(gone())
    }

    fn can_discard(&self) -> bool {
        self.can_discard
    }

    fn discard(&self, _: u64, _: u64) -> io::Result<()> {
        Err(gone())
    }

    fn write_zeroes(&self, _: u64, _: u64, _: bool) -> io::Result<()> {
        Err(gone())
    }
}
