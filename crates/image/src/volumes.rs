//! All regions of a disk with what is in them, and GRUB's names for them.

use std::cell::RefCell;
use std::io::{Cursor, SeekFrom};
use std::rc::Rc;

use crate::ReadSeek;
use crate::fs::{FsError, Volume};
use crate::meter::{MeteredDisk, SharedDisk};
use crate::partitions::{Region, RegionKind};

/// GRUB's name of the memory disk that is embedded in its image.
const MEMORY_DISK: &str = "memdisk";
/// Bytes that may be read of a memory disk; the disk has at most 16 MiB.
const MEMORY_DISK_BUDGET: u64 = 128 << 20;

/// What a region holds.
#[derive(Clone)]
pub(crate) enum Content {
    Open(Rc<Volume>),
    /// Nothing that a boot loader reads: swap, or no file system that is known at all.
    Nothing,
    /// Something that a boot loader may read and that is not read here, by its name.
    Unread(String),
}

#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) region: Region,
    pub(crate) content: Content,
}

/// The disk as a boot loader sees it.
pub(crate) struct Volumes {
    pub(crate) parts: Vec<Part>,
    /// The first sector, in which a BIOS loader begins.
    pub(crate) boot_sector: Vec<u8>,
}

/// A file on one of the volumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Index into [`Volumes::parts`].
    pub(crate) part: usize,
    pub(crate) path: String,
}

/// (offset, magic, name) of what boot loaders or initrds read besides ext4 and FAT.
const SIGNATURES: &[(u64, &[u8], &str)] = &[
    (0, b"XFSB", "XFS"),
    (0x1_0040, b"_BHRfS_M", "btrfs"),
    (512, b"LABELONE", "an LVM physical volume"),
    (0, b"LVM2 001", "an LVM physical volume"),
    (0, b"LUKS\xba\xbe", "LUKS"),
    (1024, &[0x10, 0x20, 0xf5, 0xf2], "F2FS"),
    (3, b"NTFS    ", "NTFS"),
    (3, b"EXFAT   ", "exFAT"),
    (0x8001, b"CD001", "ISO 9660"),
    (0, b"hsqs", "SquashFS"),
    (1024, &[0xe2, 0xe1, 0xf5, 0xe0], "EROFS"),
    (0x1_0034, b"ReIsEr", "ReiserFS"),
    (0x8000, b"JFS1", "JFS"),
    (4096, &[0xfc, 0x4e, 0x2b, 0xa9], "an MD RAID member"),
    (0x4_0000, b"\xb1\x7a\xba\0", "ZFS"),
    (0x1_055c, &[0x19, 0x01, 0x54, 0x19], "UFS"),
    (0x2_055c, &[0x19, 0x01, 0x54, 0x19], "UFS"),
];

impl Volumes {
    pub(crate) fn open(disk: &SharedDisk, regions: Vec<Region>) -> Result<Volumes, FsError> {
        let mut boot_sector = vec![0; 512];
        let got = read_at(&mut *disk.borrow_mut(), 0, &mut boot_sector)?;
        boot_sector.truncate(got);
        let mut parts: Vec<Part> = Vec::new();
        for region in regions {
            // No partitioning tool makes such a table, and each name for the same bytes would cost as much again.
            let over = parts.iter().find(|part| part.region.overlaps(&region));
            let content = match over {
                Some(over) => Content::Unread(format!("overlaps {}", over.region.name)),
                None if region.kind == RegionKind::Extended => {
                    Content::Unread("logical partitions".to_owned())
                }
                None => content(disk, &region)?,
            };
            parts.push(Part { region, content });
        }
        Ok(Volumes { parts, boot_sector })
    }

    /// These, and the memory disk of the GRUB image `image`.
    pub(crate) fn with_memory_disk(&self, image: &str, bytes: Vec<u8>) -> Volumes {
        let region = Region {
            name: format!("the memory disk of {image}"),
            device: MEMORY_DISK.to_owned(),
            start: 0,
            len: bytes.len() as u64,
            kind: RegionKind::Ordinary,
        };
        let disk = MeteredDisk::new(Cursor::new(bytes), MEMORY_DISK_BUDGET);
        let content = match content(&Rc::new(RefCell::new(disk)), &region) {
            // GRUB reads archives there, too.
            Ok(Content::Nothing) => Content::Unread("no FAT".to_owned()),
            Ok(content) => content,
            Err(error) => Content::Unread(error.to_string()),
        };
        let mut parts = self.parts.clone();
        parts.push(Part { region, content });
        Volumes {
            parts,
            boot_sector: self.boot_sector.clone(),
        }
    }

    pub(crate) fn volume(&self, part: usize) -> Option<&Rc<Volume>> {
        match &self.parts.get(part)?.content {
            Content::Open(volume) => Some(volume),
            _ => None,
        }
    }

    /// The volumes that can be read, with their indices.
    pub(crate) fn open_volumes(&self) -> impl Iterator<Item = (usize, &Rc<Volume>)> {
        let parts = self.parts.iter().enumerate();
        parts.filter_map(|(i, part)| match &part.content {
            Content::Open(volume) => Some((i, volume)),
            _ => None,
        })
    }

    /// A region that a boot loader may read and that is not read here, as "partition 2 (XFS)".
    pub(crate) fn unread(&self) -> Option<String> {
        self.parts.iter().find_map(|part| match &part.content {
            Content::Unread(what) => Some(format!("{} ({what})", part.region.name)),
            _ => None,
        })
    }

    /// The part that GRUB calls `name`: "hd0,gpt1", "hd0,msdos1", "hd0,1", "hd0".
    pub(crate) fn device(&self, name: &str) -> Option<usize> {
        let parts = || self.parts.iter().enumerate();
        let exact = parts().find(|(_, part)| part.region.device == name);
        let by_number = || {
            let number = name.strip_prefix("hd0,")?;
            let digits = number.chars().all(|c| c.is_ascii_digit()) && !number.is_empty();
            let same = |device: &str| {
                device
                    .trim_start_matches("hd0,")
                    .trim_start_matches(char::is_alphabetic)
                    == number
            };
            parts().find(|(_, part)| digits && same(&part.region.device))
        };
        exact.or_else(by_number).map(|(i, _)| i)
    }
}

fn content(disk: &SharedDisk, region: &Region) -> Result<Content, FsError> {
    match Volume::open(disk, region) {
        Ok(volume) => Ok(Content::Open(Rc::new(volume))),
        Err(FsError::Io(error)) => Err(FsError::Io(error)),
        Err(FsError::Unknown) => match signature(disk, region)? {
            Some(name) => Ok(Content::Unread(name.to_owned())),
            None => Ok(Content::Nothing),
        },
        Err(error) => Ok(Content::Unread(error.to_string())),
    }
}

fn signature(disk: &SharedDisk, region: &Region) -> Result<Option<&'static str>, FsError> {
    for (at, magic, name) in SIGNATURES {
        if at + magic.len() as u64 > region.len {
            continue;
        }
        let mut found = vec![0; magic.len()];
        let got = read_at(&mut *disk.borrow_mut(), region.start + at, &mut found)?;
        if got == found.len() && found == *magic {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Returns how many bytes there were.
fn read_at(disk: &mut dyn ReadSeek, at: u64, buf: &mut [u8]) -> Result<usize, FsError> {
    disk.seek(SeekFrom::Start(at))?;
    let mut done = 0;
    while done < buf.len() {
        match disk.read(&mut buf[done..])? {
            0 => break,
            got => done += got,
        }
    }
    Ok(done)
}
