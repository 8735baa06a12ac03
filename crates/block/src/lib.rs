//! The disk data path: what a virtio block worker reads and writes.
//!
//! Two kinds of [`Disk`]: a [`raw`] file, and an [`overlay`] (a sparse file and a chunk map over a read-only
//! base). [`DiskReader`] lends a disk to code that wants `std::io`.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

use std::io;

pub mod overlay;
pub mod raw;
mod reader;
mod store;

pub use overlay::Overlay;
pub use raw::RawDisk;
pub use reader::DiskReader;
pub use store::Store;

/// The sector of virtio block, and the unit of a disk's size. Bytes.
pub const SECTOR: u64 = 512;

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

/// Refuses a range that does not lie inside a disk of `size` bytes.
fn check_range(size: u64, offset: u64, len: usize) -> io::Result<()> {
    match offset.checked_add(len as u64) {
        Some(end) if end <= size => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{len} bytes at offset {offset} lie beyond the disk's end at {size}"),
        )),
    }
}
