//! AMI import: recognising disk formats, partition tables, file systems and boot entries, finding the kernel.
//!
//! Everything read here was written by a stranger: every length is bounded before it is believed, and no
//! sequence of bytes may panic or take unbounded memory.
//!
//! The road of [`find_boot`]: [`partitions`] cuts the disk into regions, [`filesystem`] opens those that hold
//! ext4, [`entry`] reads the boot loader's configuration, [`kernel`] unpacks what it names.

#![cfg_attr(
    any(test, feature = "testing"),
    allow(clippy::unwrap_used, clippy::expect_used)
)]

use std::io::{Read, Seek};

mod digest;
mod entry;
mod filesystem;
mod find;
mod format;
#[cfg(any(test, feature = "testing"))]
pub mod fuzz;
mod inspect;
pub mod kernel;
mod meter;
mod partitions;
mod sparse;

pub use digest::{DiskHasher, disk_digest};
pub use find::{FindError, find_boot};
pub use format::{Format, sniff};
pub use inspect::{ImageInfo, ImportError, inspect};
pub use sparse::Extents;

/// What to boot, as found on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootFiles {
    /// Path of the kernel inside the boot file system, for people.
    pub kernel_path: String,
    /// The kernel as a bootable ELF: a bzImage's payload is decompressed already.
    pub kernel: Vec<u8>,
    pub initrd: Option<Vec<u8>>,
    /// The boot entry's command line.
    pub cmdline: String,
}

/// A disk to look into.
pub trait ReadSeek: Read + Seek {}
impl<T: Read + Seek> ReadSeek for T {}
