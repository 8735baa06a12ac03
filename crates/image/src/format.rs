//! What kind of file somebody calls a disk image. Hearth's data path reads raw disks alone; the others are
//! recognised by their magic so that the refusal can say what to do.

use std::fmt;
use std::io::{self, SeekFrom};

use crate::{ReadSeek, kernel};

/// A file's format, as far as its magic tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// Sector by sector; at least nothing else is recognised.
    Raw,
    Qcow2,
    Qed,
    Vmdk,
    Vhd,
    Vhdx,
    Vdi,
    Parallels,
    Iso9660,
    Luks,
    SquashFs,
    Gzip,
    Xz,
    Zstd,
    Lz4,
    Bzip2,
    Zip,
    SevenZip,
    Tar,
    Elf,
    LinuxKernel,
}

impl Format {
    /// What people call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Format::Raw => "raw disk",
            Format::Qcow2 => "qcow2 image",
            Format::Qed => "QED image",
            Format::Vmdk => "VMDK image",
            Format::Vhd => "VHD image",
            Format::Vhdx => "VHDX image",
            Format::Vdi => "VirtualBox VDI image",
            Format::Parallels => "Parallels image",
            Format::Iso9660 => "ISO 9660 CD image",
            Format::Luks => "LUKS-encrypted disk",
            Format::SquashFs => "SquashFS file system",
            Format::Gzip => "gzip-compressed file",
            Format::Xz => "xz-compressed file",
            Format::Zstd => "zstd-compressed file",
            Format::Lz4 => "lz4-compressed file",
            Format::Bzip2 => "bzip2-compressed file",
            Format::Zip => "zip archive",
            Format::SevenZip => "7z archive",
            Format::Tar => "tar archive (an OVA is one too)",
            Format::Elf => "ELF program",
            Format::LinuxKernel => "Linux kernel",
        }
    }

    /// What to do with such a file to get a raw disk.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Format::Raw => "it can be used as it is",
            Format::Qcow2 => "convert it first: qemu-img convert -f qcow2 -O raw IN OUT",
            Format::Qed => "convert it first: qemu-img convert -f qed -O raw IN OUT",
            Format::Vmdk => "convert it first: qemu-img convert -f vmdk -O raw IN OUT",
            Format::Vhd => "convert it first: qemu-img convert -f vpc -O raw IN OUT",
            Format::Vhdx => "convert it first: qemu-img convert -f vhdx -O raw IN OUT",
            Format::Vdi => "convert it first: qemu-img convert -f vdi -O raw IN OUT",
            Format::Parallels => "convert it first: qemu-img convert -f parallels -O raw IN OUT",
            Format::Iso9660 => "use the distribution's cloud image instead of its installer",
            Format::Luks => "use an image whose root file system is not encrypted",
            Format::SquashFs => "use a whole disk with an ext4 root file system",
            Format::Gzip => "unpack it first: gunzip FILE",
            Format::Xz => "unpack it first: unxz FILE",
            Format::Zstd => "unpack it first: unzstd FILE",
            Format::Lz4 => "unpack it first: unlz4 FILE",
            Format::Bzip2 => "unpack it first: bunzip2 FILE",
            Format::Zip => "unpack it first: unzip FILE",
            Format::SevenZip => "unpack it first: 7z x FILE",
            Format::Tar => "unpack it first (tar -xf FILE) and register the disk that is in it",
            Format::Elf | Format::LinuxKernel => "register a disk image that has the kernel in its /boot",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Magics at fixed offsets from the start.
const MAGICS: &[(usize, &[u8], Format)] = &[
    (0, b"QFI\xfb", Format::Qcow2),
    (0, b"QED\0", Format::Qed),
    (0, b"KDMV", Format::Vmdk),
    (0, b"COWD", Format::Vmdk),
    (0, b"# Disk DescriptorFile", Format::Vmdk),
    (0, b"conectix", Format::Vhd),
    (0, b"vhdxfile", Format::Vhdx),
    (64, b"\x7f\x10\xda\xbe", Format::Vdi),
    (0, b"WithoutFreeSpace", Format::Parallels),
    (0, b"WithouFreSpacExt", Format::Parallels),
    (0, b"LUKS\xba\xbe", Format::Luks),
    (0, b"hsqs", Format::SquashFs),
    (0, b"\x1f\x8b\x08", Format::Gzip),
    (0, b"\xfd7zXZ\0", Format::Xz),
    (0, b"\x28\xb5\x2f\xfd", Format::Zstd),
    (0, b"\x04\x22\x4d\x18", Format::Lz4),
    (0, b"BZh", Format::Bzip2),
    (0, b"PK\x03\x04", Format::Zip),
    (0, b"7z\xbc\xaf\x27\x1c", Format::SevenZip),
    (257, b"ustar", Format::Tar),
    (0, b"\x7fELF", Format::Elf),
    (32769, b"CD001", Format::Iso9660),
];

const HEAD: u64 = 33 << 10;
/// A fixed VHD is a raw disk with this sector behind it.
pub(crate) const VHD_FOOTER: u64 = 512;

/// Recognises a file by its magic.
///
/// # Errors
/// It cannot be read.
pub fn sniff(disk: &mut dyn ReadSeek) -> io::Result<Format> {
    let end = disk.seek(SeekFrom::End(0))?;
    let mut head = vec![0; HEAD.min(end) as usize];
    disk.seek(SeekFrom::Start(0))?;
    disk.read_exact(&mut head)?;
    let found = MAGICS
        .iter()
        .find(|(at, magic, _)| head.get(*at..).is_some_and(|rest| rest.starts_with(magic)));
    if let Some((_, _, format)) = found {
        return Ok(*format);
    }
    if kernel::is_bzimage(&head) {
        return Ok(Format::LinuxKernel);
    }
    if let Some(at) = end.checked_sub(VHD_FOOTER) {
        let mut cookie = [0; 8];
        disk.seek(SeekFrom::Start(at))?;
        disk.read_exact(&mut cookie)?;
        if &cookie == b"conectix" {
            return Ok(Format::Vhd);
        }
    }
    Ok(Format::Raw)
}
