//! AMI import: recognising disk formats, partition tables, file systems and boot entries, finding the kernel.
//!
//! Everything read here was written by a stranger: every length is bounded before it is believed, and no
//! sequence of bytes may panic, loop for ever or take unbounded memory.

use std::io::{Read, Seek};
use std::path::Path;

pub mod kernel;

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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Raw,
}

#[derive(Debug, thiserror::Error)]
pub enum FindError {
    #[error("reading the disk")]
    Io(#[source] std::io::Error),
}

#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("reading the disk image")]
    Io(#[source] std::io::Error),
}

/// What a disk image holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageInfo {
    /// Bytes.
    pub size: u64,
    pub kernel_path: String,
    pub cmdline: String,
    pub has_initrd: bool,
}

/// # Errors
/// The disk cannot be read.
pub fn sniff(disk: &mut dyn ReadSeek) -> std::io::Result<Format> {
    let _ = disk;
    Ok(Format::Raw)
}

/// Takes the disk by value: the file system reader keeps it (lend a `DiskReader` or a `File`'s clone).
///
/// # Errors
/// Nothing bootable is found.
pub fn find_boot(disk: impl ReadSeek + 'static) -> Result<BootFiles, FindError> {
    let _ = disk;
    Err(FindError::Io(std::io::ErrorKind::Unsupported.into()))
}

/// # Errors
/// The file is no raw disk image with a kernel.
pub fn inspect(path: &Path) -> Result<ImageInfo, ImportError> {
    let _ = path;
    Err(ImportError::Io(std::io::ErrorKind::Unsupported.into()))
}
