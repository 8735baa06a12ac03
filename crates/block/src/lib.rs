//! The disk data path: what a virtio block worker reads and writes.
//!
//! Two kinds of [`Disk`]: a [`raw`] file, and an [`overlay`] (a sparse file and a chunk map over a read-only
//! [`base`], which may still be on its way). Code that wants one thing after the other calls a disk's methods, or lends it to `std::io` with
//! [`DiskReader`]; a device that has many requests in flight drives an [`engine`], which asks the disk where its
//! bytes are and moves them without it.

#![cfg_attr(
    any(test, feature = "testing"),
    allow(clippy::unwrap_used, clippy::expect_used)
)]

use std::io;
use std::sync::Arc;

mod backing;
pub mod base;
pub mod cipher;
pub mod engine;
#[cfg(any(test, feature = "testing"))]
pub mod fuzz;
pub mod overlay;
pub mod raw;
mod reader;
mod scratch;
mod sectors;
mod store;

pub use backing::Backing;
pub use base::Base;
pub use cipher::{Cipher, Key};
pub use overlay::Overlay;
pub use raw::RawDisk;
pub use reader::DiskReader;
pub use store::Store;

/// The sector of virtio block, and the unit of a disk's size. Bytes.
pub const SECTOR: u64 = 512;

/// What is going to be done with a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

/// A run of a disk's bytes that lie together, or that only the disk's own methods can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Bytes.
    pub len: u64,
    /// Where they are, until the disk is dropped; `None`: ask the disk itself.
    pub place: Option<Place>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The number in [`Disk::backings`].
    pub backing: usize,
    /// Bytes into the backing.
    pub offset: u64,
}

/// A point in time that is about to begin.
pub struct Freeze {
    pub name: String,
    /// An empty file, for [`overlay::frozen`].
    pub frozen: Box<dyn Store>,
    /// A [dirty map](overlay::dirty) without marks.
    pub dirty: Box<dyn Store>,
}

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

    /// Whether [`Disk::discard`] gives space back.
    fn can_discard(&self) -> bool {
        false
    }

    /// Forgets what a range holds. It reads as zeros or as before.
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        check_range(self.size(), offset, len)?;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Makes a range read as zeros; only with `unmap` may its space be given back.
    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()>;

    /// Takes on the size that its file has been given since, and returns it. An overlay does not shrink; it is on the
    /// new size when that survives a power cut, and so may take as long as a flush.
    fn refresh_size(&self) -> io::Result<u64> {
        Ok(self.size())
    }

    /// Keeps what the disk holds now, under a name, while it is written; and notes what is written from now on in another
    /// dirty map. Nobody writes meanwhile, and nothing that was submitted to an engine is in flight. Again under the same
    /// name it changes nothing.
    ///
    /// # Errors
    /// `Unsupported`: only tracked overlays can be frozen. It is frozen under another name. Others are the files'.
    fn freeze(&self, freeze: Freeze) -> io::Result<()> {
        let _ = freeze;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Keeps nothing any more of the point in time of this name.
    fn thaw(&self, name: &str) {
        let _ = name;
    }

    /// Switches I/O past the host's page cache on, where the backing allows it, or off. Nobody may be using the
    /// disk meanwhile.
    fn set_direct(&self, on: bool) {
        let _ = on;
    }

    /// The files that [`Disk::locate`] points into: the same ones in the same order as long as the disk lives.
    fn backings(&self) -> Vec<&Backing> {
        Vec::new()
    }

    /// Under which the sectors of a backing lie encrypted, each by its number in the backing.
    fn cipher(&self, backing: usize) -> Option<&Arc<Cipher>> {
        let _ = backing;
        None
    }

    /// The first chunk of the disk's base that a read or write of the range needs and that has not come. The disk's methods
    /// would wait for it, in the caller's thread.
    fn awaits(&self, offset: u64, len: u64, access: Access) -> Option<u64> {
        let _ = (offset, len, access);
        None
    }

    /// Has a chunk of the disk's base brought, and calls `done` when it has come or cannot.
    fn fetch(&self, chunk: u64, done: base::Done) {
        let _ = chunk;
        done(Ok(()));
    }

    /// The extent at `offset`, of which the first `len` bytes are of interest: it has at least one byte, and at
    /// most `len`.
    fn locate(&self, offset: u64, len: u64, access: Access) -> Extent {
        let _ = (offset, access);
        Extent { len, place: None }
    }
}

/// Refuses a range that does not lie inside a disk of `size` bytes.
fn check_range(size: u64, offset: u64, len: u64) -> io::Result<()> {
    match offset.checked_add(len) {
        Some(end) if end <= size => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{len} bytes at offset {offset} lie beyond the disk's end at {size}"),
        )),
    }
}
