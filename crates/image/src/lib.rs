//! AMI import: recognising disk formats, partition tables, file systems and boot entries, finding the kernel.
//!
//! Everything read here was written by a stranger: every length is bounded before it is believed, and no
//! sequence of bytes may panic or take unbounded memory.
//!
//! [`find_road`] decides how a disk boots: [`partitions`] cuts it into regions, [`fs`] opens those that hold ext4 or
//! FAT, [`loaders`] tells which boot loader is installed, [`entry`] reads that loader's configuration as the loader
//! does, [`kernel`] unpacks what it names. Where a step is not certain, firmware boots the disk ([`Road`]).

#![cfg_attr(
    any(test, feature = "testing"),
    allow(clippy::unwrap_used, clippy::expect_used)
)]

use std::io::{Read, Seek};

mod bytes;
mod digest;
mod entry;
mod esp;
mod find;
mod format;
mod fs;
#[cfg(any(test, feature = "testing"))]
pub mod fuzz;
mod inspect;
pub mod kernel;
#[cfg(test)]
mod layouts;
mod loaders;
mod meter;
mod partitions;
mod road;
mod sparse;
mod unpack;
mod volumes;

pub use digest::{DiskHasher, disk_digest, is_zero};
pub use find::{FindError, Looked, find_road};
pub use format::{Format, sniff};
pub use inspect::{DirectBoot, ImageInfo, ImportError, inspect};
pub use road::{BootMode, Construct, Road, UnknownBootMode};
pub use sparse::Extents;
pub use unpack::{PIECE, Sink, UnpackError, unpack};

/// What to boot, as found on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootFiles {
    /// Path of the kernel in its file system, for people.
    pub kernel_path: String,
    /// The kernel as a bootable ELF: a bzImage's payload is decompressed already.
    pub kernel: Vec<u8>,
    pub initrd: Option<Vec<u8>>,
    /// The command line, as the boot loader hands it to the kernel.
    pub cmdline: String,
    /// Whether firmware could boot the disk too, by its EFI boot loader.
    pub has_efi_loader: bool,
}

/// A disk to look into.
pub trait ReadSeek: Read + Seek {}
impl<T: Read + Seek> ReadSeek for T {}
