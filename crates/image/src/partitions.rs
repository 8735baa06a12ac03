//! Where on a disk file systems may be: GPT, MBR, or the disk as a whole.

use std::io::{self, SeekFrom};

use gpt::disk::LogicalBlockSize;
use gpt::header::read_header_from_arbitrary_device;
use gpt::partition::file_read_partitions;
use mbrman::MBRHeader;

use crate::ReadSeek;

/// The specification asks for room for 128 and no disk in practice has more; the table is read at once.
const MAX_GPT_ENTRIES: u32 = 4096;
/// Partitions in use.
pub(crate) const MAX_PARTITIONS: usize = 128;
const GPT_ENTRY: u32 = 128;
/// The MBR's type of the one partition that protects a GPT.
const PROTECTIVE: u8 = 0xee;
/// Where ext2, 3 and 4 keep their magic.
const EXT_MAGIC_OFFSET: u64 = 1024 + 56;

/// A range of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Region {
    /// For people: "partition 1".
    pub(crate) name: String,
    /// Bytes.
    pub(crate) start: u64,
    /// Bytes.
    pub(crate) len: u64,
}

impl Region {
    pub(crate) fn overlaps(&self, other: &Region) -> bool {
        self.start < other.start + other.len && other.start < self.start + self.len
    }

    /// None if it does not lie inside a disk of `size` bytes.
    fn partition(number: impl std::fmt::Display, start: u64, len: u64, size: u64) -> Option<Region> {
        let inside = len > 0 && start.checked_add(len)? <= size;
        inside.then(|| Region {
            name: format!("partition {number}"),
            start,
            len,
        })
    }
}

/// Why a disk has no usable list of regions.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TableError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("more than {MAX_PARTITIONS} partitions are in use")]
    TooMany,
}

/// All partitions that lie inside the disk, or the whole disk where there is no partition table.
pub(crate) fn regions(mut disk: &mut dyn ReadSeek) -> Result<Vec<Region>, TableError> {
    let size = disk.seek(SeekFrom::End(0))?;
    for block in [LogicalBlockSize::Lb512, LogicalBlockSize::Lb4096] {
        if let Some(found) = gpt_regions(&mut disk, block, size) {
            if found.len() > MAX_PARTITIONS {
                return Err(TableError::TooMany);
            }
            return Ok(found);
        }
    }
    let whole = vec![Region {
        name: "the whole disk".to_owned(),
        start: 0,
        len: size,
    }];
    // A file system without a table may carry a boot sector that looks like an MBR.
    if has_ext_magic(disk, 0)? {
        return Ok(whole);
    }
    let found = mbr_regions(disk, size);
    Ok(if found.is_empty() { whole } else { found })
}

/// Whether an ext2, 3 or 4 file system seems to begin at `start`.
pub(crate) fn has_ext_magic(disk: &mut dyn ReadSeek, start: u64) -> io::Result<bool> {
    let mut magic = [0; 2];
    disk.seek(SeekFrom::Start(start.saturating_add(EXT_MAGIC_OFFSET)))?;
    match disk.read_exact(&mut magic) {
        Ok(()) => Ok(magic == [0x53, 0xef]),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
}

fn gpt_regions(disk: &mut &mut dyn ReadSeek, block: LogicalBlockSize, size: u64) -> Option<Vec<Region>> {
    let header = read_header_from_arbitrary_device(disk, block).ok()?;
    // The gpt crate believes both figures.
    if header.part_size != GPT_ENTRY || header.num_parts > MAX_GPT_ENTRIES {
        return None;
    }
    let table = file_read_partitions(disk, &header, block).ok()?;
    let regions = table
        .iter()
        .filter(|(_, partition)| partition.is_used())
        .filter_map(|(number, partition)| {
            Region::partition(
                number,
                partition.bytes_start(block).ok()?,
                partition.bytes_len(block).ok()?,
                size,
            )
        });
    Some(regions.collect())
}

/// Primary partitions only: nothing boots a cloud image from a logical one.
fn mbr_regions(mut disk: &mut dyn ReadSeek, size: u64) -> Vec<Region> {
    if disk.seek(SeekFrom::Start(0)).is_err() {
        return Vec::new();
    }
    let Ok(header) = MBRHeader::read_from(&mut disk) else {
        return Vec::new();
    };
    let entries = header
        .iter()
        .filter(|(_, entry)| entry.is_used() && !entry.is_extended() && entry.sys != PROTECTIVE);
    entries
        .filter_map(|(number, entry)| {
            Region::partition(
                number,
                u64::from(entry.starting_lba) * 512,
                u64::from(entry.sectors) * 512,
                size,
            )
        })
        .collect()
}
