//! AMI import: recognising disk formats, partition tables, file systems and boot entries, finding the kernel.

use std::io::{Read, Seek};

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
