//! Where on a disk file systems may be: GPT, MBR, or the disk as a whole.

use std::io::{self, SeekFrom};

use gpt::disk::LogicalBlockSize;
use gpt::header::read_header_from_arbitrary_device;
use gpt::partition::file_read_partitions;
use gpt::partition_types;
use mbrman::MBRHeader;

use crate::ReadSeek;

/// The specification asks for room for 128 and no disk in practice has more; the table is read at once.
const MAX_GPT_ENTRIES: u32 = 4096;
/// Partitions in use.
pub(crate) const MAX_PARTITIONS: usize = 128;
const GPT_ENTRY: u32 = 128;
/// MBR partition types: the one partition that protects a GPT, and the EFI system partition.
const PROTECTIVE: u8 = 0xee;
const EFI_SYSTEM: u8 = 0xef;

/// A range of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Region {
    /// For people: "partition 1".
    pub(crate) name: String,
    /// GRUB's name of it: "hd0,gpt1".
    pub(crate) device: String,
    /// Bytes.
    pub(crate) start: u64,
    /// Bytes.
    pub(crate) len: u64,
    pub(crate) kind: RegionKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RegionKind {
    Ordinary,
    EfiSystem,
    /// Holds logical partitions, which are not looked into.
    Extended,
}

impl Region {
    pub(crate) fn overlaps(&self, other: &Region) -> bool {
        self.start < other.start + other.len && other.start < self.start + self.len
    }
}

/// Why a disk has no usable list of regions.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TableError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("more than {MAX_PARTITIONS} partitions are in use")]
    TooMany,
    #[error("its GPT is for sectors of 4096 bytes, and virtual disks have sectors of 512")]
    SectorSize,
    #[error("it has a protective MBR, and its GPT is damaged")]
    BrokenGpt,
}

/// All partitions that begin inside the disk, or the whole disk where there is no partition table. A partition that
/// ends behind the disk ends with it, as in Linux.
pub(crate) fn regions(mut disk: &mut dyn ReadSeek) -> Result<Vec<Region>, TableError> {
    let size = disk.seek(SeekFrom::End(0))?;
    if let Some(found) = gpt_regions(&mut disk, LogicalBlockSize::Lb512, size) {
        if found.len() > MAX_PARTITIONS {
            return Err(TableError::TooMany);
        }
        return Ok(found);
    }
    // The table itself need not be good: a disk with the signature there was made for such sectors.
    if read_header_from_arbitrary_device(&mut disk, LogicalBlockSize::Lb4096).is_ok() {
        return Err(TableError::SectorSize);
    }
    let whole = vec![Region {
        name: "the whole disk".to_owned(),
        device: "hd0".to_owned(),
        start: 0,
        len: size,
        kind: RegionKind::Ordinary,
    }];
    // A file system without a table may carry a boot sector that looks like an MBR.
    if crate::fs::has_ext_magic(disk, 0)? {
        return Ok(whole);
    }
    let found = mbr_regions(disk, size)?;
    Ok(if found.is_empty() { whole } else { found })
}

fn gpt_regions(disk: &mut &mut dyn ReadSeek, block: LogicalBlockSize, size: u64) -> Option<Vec<Region>> {
    let header = read_header_from_arbitrary_device(disk, block).ok()?;
    // The gpt crate believes both figures.
    if header.part_size != GPT_ENTRY || header.num_parts > MAX_GPT_ENTRIES {
        return None;
    }
    let table = file_read_partitions(disk, &header, block).ok()?;
    let used = table.iter().filter(|(_, partition)| partition.is_used());
    let regions = used.filter_map(|(number, partition)| {
        let start = partition.bytes_start(block).ok()?;
        let len = partition.bytes_len(block).ok()?;
        let kind = if partition.part_type_guid == partition_types::EFI {
            RegionKind::EfiSystem
        } else {
            RegionKind::Ordinary
        };
        inside(start, len, size).map(|len| Region {
            name: format!("partition {number}"),
            device: format!("hd0,gpt{number}"),
            start,
            len,
            kind,
        })
    });
    Some(regions.collect())
}

/// How much of a range is on a disk of `size` bytes; none if nothing is.
fn inside(start: u64, len: u64, size: u64) -> Option<u64> {
    let left = size.checked_sub(start)?;
    let len = len.min(left);
    (len > 0).then_some(len)
}

/// Primary partitions.
fn mbr_regions(mut disk: &mut dyn ReadSeek, size: u64) -> Result<Vec<Region>, TableError> {
    disk.seek(SeekFrom::Start(0))?;
    let Ok(header) = MBRHeader::read_from(&mut disk) else {
        return Ok(Vec::new());
    };
    let used = || header.iter().filter(|(_, entry)| entry.is_used());
    if used().any(|(_, entry)| entry.sys == PROTECTIVE) && used().count() == 1 {
        return Err(TableError::BrokenGpt);
    }
    let entries = used().filter(|(_, entry)| entry.sys != PROTECTIVE);
    let regions = entries.filter_map(|(number, entry)| {
        let start = u64::from(entry.starting_lba) * 512;
        let kind = match entry.sys {
            EFI_SYSTEM => RegionKind::EfiSystem,
            _ if entry.is_extended() => RegionKind::Extended,
            _ => RegionKind::Ordinary,
        };
        // A table that covers itself is a boot sector that only looks like one.
        let len = inside(start, u64::from(entry.sectors) * 512, size).filter(|_| start > 0)?;
        Some(Region {
            name: format!("partition {number}"),
            device: format!("hd0,msdos{number}"),
            start,
            len,
            kind,
        })
    });
    Ok(regions.collect())
}
