//! The disk data path: what a virtio block worker reads and writes.

use std::io;

/// A virtual disk of 512-byte sectors. Shared by the queues of one device, so all methods take `&self`.
///
/// Offsets and lengths are bytes and need no alignment. A read or write beyond [`Disk::size`] is
/// `InvalidInput` and touches nothing. After [`Disk::flush`] returned, everything written before it survives
/// a `kill -9` and a power cut.
pub trait Disk: Send + Sync {
    /// Bytes.
    fn size(&self) -> u64;
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    fn flush(&self) -> io::Result<()>;
}
