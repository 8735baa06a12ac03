//! The journal of a file system that was not unmounted: where the newest content of each block is, as Linux's
//! `fs/jbd2/recovery.c` would find it. Nothing is written.

use std::collections::BTreeMap;

use super::super::FsError;
use super::superblock::{Superblock, crc32c};
use super::view::RawView;
use crate::bytes::{le_u16, le_u32};

const MAGIC: u32 = 0xc03b_3998;
/// Block types.
const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const SUPERBLOCK_1: u32 = 3;
const SUPERBLOCK_2: u32 = 4;
const REVOKE: u32 = 5;
/// Incompatible features.
const REVOKES: u32 = 0x1;
const BITS_64: u32 = 0x2;
const ASYNC_COMMIT: u32 = 0x4;
const CHECKSUM_2: u32 = 0x8;
const CHECKSUM_3: u32 = 0x10;
/// Compatible: a checksum over each transaction.
const CHECKSUM_1: u32 = 0x1;
/// Flags of a tag.
const ESCAPED: u32 = 1;
const SAME_UUID: u32 = 2;
const LAST: u32 = 8;

/// Blocks that a journal may name: a journal of 1 GiB with blocks of 4 KiB.
const MAX_TAGS: usize = 1 << 18;
/// Pieces that a journal may be in.
const MAX_EXTENTS: usize = 4096;
/// Levels of an extent tree.
const MAX_DEPTH: u16 = 5;

/// Where the newest content of a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Copied {
    /// Block of the file system that has the copy.
    pub(super) block: u64,
    /// The copy begins with zeros where the block begins with the journal's magic.
    pub(super) escaped: bool,
}

/// Puts the magic back at the beginning of a block. `piece` was read from byte `within` of the block on.
pub(super) fn unescape(within: u64, piece: &mut [u8]) {
    for (at, byte) in (within..).zip(piece) {
        if let Some(original) = usize::try_from(at)
            .ok()
            .and_then(|at| MAGIC.to_be_bytes().get(at).copied())
        {
            *byte = original;
        }
    }
}

/// Blocks whose newest content is in the journal, with where it is there.
pub(super) fn replay(raw: &RawView, superblock: &Superblock) -> Result<BTreeMap<u64, Copied>, FsError> {
    let extents = journal_extents(raw, superblock)?;
    let Some(journal) = Journal::open(raw, superblock, extents)? else {
        return Ok(BTreeMap::new());
    };
    journal.replay()
}

fn unsupported<T>(what: &str) -> Result<T, FsError> {
    Err(FsError::Journal(what.to_owned()))
}

/// A run of a journal's blocks.
struct Extent {
    logical: u64,
    physical: u64,
    len: u64,
}

struct Journal<'a> {
    raw: &'a RawView,
    block_size: usize,
    extents: Vec<Extent>,
    /// Journal blocks: the first of the log, and the one behind its last.
    first: u64,
    end: u64,
    start: u64,
    sequence: u32,
    features: u32,
    checksum_seed: u32,
}

struct Tag {
    block: u64,
    copied: Copied,
    sequence: u32,
}

impl<'a> Journal<'a> {
    /// None if it is empty.
    fn open(
        raw: &'a RawView,
        superblock: &Superblock,
        extents: Vec<Extent>,
    ) -> Result<Option<Self>, FsError> {
        let block_size = superblock.block_size as usize;
        let mut journal = Journal {
            raw,
            block_size,
            extents,
            first: 0,
            end: 0,
            start: 0,
            sequence: 0,
            features: 0,
            checksum_seed: 0,
        };
        let block = journal.read(0)?;
        let kind = be_u32(&block, 4);
        if be_u32(&block, 0) != MAGIC || ![SUPERBLOCK_1, SUPERBLOCK_2].contains(&kind) {
            return unsupported("its superblock is damaged");
        }
        if be_u32(&block, 12) as usize != block_size {
            return unsupported("its blocks have another size than the file system's");
        }
        (journal.first, journal.end) = (be_u32(&block, 20).into(), be_u32(&block, 16).into());
        (journal.sequence, journal.start) = (be_u32(&block, 24), be_u32(&block, 28).into());
        if journal.start == 0 {
            return Ok(None);
        }
        if kind == SUPERBLOCK_2 {
            journal.features = be_u32(&block, 40);
            if be_u32(&block, 36) & CHECKSUM_1 != 0 {
                return unsupported("it has checksums of its first version");
            }
            journal.checksum_seed = crc32c(!0, &block[48..64]);
        }
        let known = REVOKES | BITS_64 | ASYNC_COMMIT | CHECKSUM_2 | CHECKSUM_3;
        if journal.features & !known != 0 {
            let unknown = journal.features & !known;
            return unsupported(&format!(
                "it has features that are not known ({unknown:#x}; 0x20 is fast commits)"
            ));
        }
        let in_log = |block: u64| (journal.first..journal.end).contains(&block);
        if journal.first == 0 || !in_log(journal.start) {
            return unsupported("its log is nowhere");
        }
        Ok(Some(journal))
    }

    fn has(&self, features: u32) -> bool {
        self.features & features != 0
    }

    /// The file system's block of a journal block.
    fn physical(&self, logical: u64) -> Result<u64, FsError> {
        let extent = self
            .extents
            .iter()
            .find(|extent| (extent.logical..extent.logical + extent.len).contains(&logical));
        match extent {
            Some(extent) => Ok(extent.physical + (logical - extent.logical)),
            None => unsupported("it has a hole"),
        }
    }

    fn read(&self, logical: u64) -> Result<Vec<u8>, FsError> {
        let mut block = vec![0; self.block_size];
        self.raw
            .read_at(self.physical(logical)? * self.block_size as u64, &mut block)?;
        Ok(block)
    }

    /// `blocks` further on in the log, which is a ring.
    fn ahead(&self, block: u64, blocks: u64) -> u64 {
        let next = block + blocks;
        if next >= self.end {
            self.first + (next - self.first) % (self.end - self.first)
        } else {
            next
        }
    }

    fn replay(&self) -> Result<BTreeMap<u64, Copied>, FsError> {
        let mut committed: Vec<Tag> = Vec::new();
        let mut revoked: BTreeMap<u64, u32> = BTreeMap::new();
        // Of the transaction that is read, which counts when its commit block is there.
        let (mut tags, mut revokes) = (Vec::new(), Vec::new());
        let (mut at, mut sequence) = (self.start, self.sequence);
        let mut left = self.end - self.first;
        loop {
            let block = self.read(at)?;
            if left == 0 || be_u32(&block, 0) != MAGIC || be_u32(&block, 8) != sequence {
                break;
            }
            let mut used = 1;
            match be_u32(&block, 4) {
                DESCRIPTOR => {
                    self.check_tail(&block)?;
                    used += self.descriptor(at, sequence, &block, &mut tags)?;
                }
                REVOKE => {
                    self.check_tail(&block)?;
                    self.revoke(&block, &mut revokes)?;
                }
                COMMIT => {
                    // A commit block that was not written whole ends the log.
                    if !self.commit_is_whole(&block) {
                        break;
                    }
                    committed.append(&mut tags);
                    for block in revokes.drain(..) {
                        revoked.insert(block, sequence);
                    }
                    sequence = sequence.wrapping_add(1);
                }
                _ => break,
            }
            if committed.len() + tags.len() > MAX_TAGS || revoked.len() + revokes.len() > MAX_TAGS {
                return unsupported("it names too many blocks");
            }
            left = left.saturating_sub(used);
            at = self.ahead(at, used);
        }
        let mut newest = BTreeMap::new();
        for tag in committed {
            // A revocation is for its own transaction and those before it.
            let is_revoked = revoked
                .get(&tag.block)
                .is_some_and(|by| by.wrapping_sub(tag.sequence) < 1 << 31);
            if !is_revoked {
                newest.insert(tag.block, tag.copied);
            }
        }
        Ok(newest)
    }

    /// Reads a descriptor block's tags; returns how many blocks of data follow.
    fn descriptor(&self, at: u64, sequence: u32, block: &[u8], tags: &mut Vec<Tag>) -> Result<u64, FsError> {
        let with_checksums = self.has(CHECKSUM_2 | CHECKSUM_3);
        let size = match (self.has(CHECKSUM_3), self.has(CHECKSUM_2), self.has(BITS_64)) {
            (true, _, _) => 16,
            (false, true, true) => 14,
            (false, false, true) => 12,
            (false, true, false) => 10,
            (false, false, false) => 8,
        };
        let end = self.block_size - if with_checksums { 4 } else { 0 };
        let (mut offset, mut count) = (12, 0);
        while offset + size <= end {
            let (flags, checksum, high_at) = if self.has(CHECKSUM_3) {
                (be_u32(block, offset + 4), be_u32(block, offset + 12), offset + 8)
            } else {
                let words = be_u32(block, offset + 4);
                (words & 0xffff, words >> 16, offset + 8)
            };
            let high = if self.has(BITS_64) {
                be_u32(block, high_at)
            } else {
                0
            };
            count += 1;
            let logical = self.ahead(at, count);
            let copied = Copied {
                block: self.physical(logical)?,
                escaped: flags & ESCAPED != 0,
            };
            if with_checksums {
                let content = self.read(logical)?;
                let found = crc32c(crc32c(self.checksum_seed, &sequence.to_be_bytes()), &content);
                let same = if self.has(CHECKSUM_3) {
                    found == checksum
                } else {
                    found & 0xffff == checksum
                };
                if !same {
                    return Err(FsError::Checksum("a block of its journal".to_owned()));
                }
            }
            tags.push(Tag {
                block: u64::from(high) << 32 | u64::from(be_u32(block, offset)),
                copied,
                sequence,
            });
            offset += size;
            if flags & SAME_UUID == 0 {
                offset += 16;
            }
            if flags & LAST != 0 {
                break;
            }
        }
        Ok(count)
    }

    fn revoke(&self, block: &[u8], revokes: &mut Vec<u64>) -> Result<(), FsError> {
        let end = be_u32(block, 12) as usize;
        let size = if self.has(BITS_64) { 8 } else { 4 };
        if end > self.block_size {
            return unsupported("a revocation is longer than its block");
        }
        for record in block.get(16..end).unwrap_or_default().chunks_exact(size) {
            let high = if size == 8 {
                u64::from(be_u32(record, 0)) << 32
            } else {
                0
            };
            revokes.push(high | u64::from(be_u32(record, size - 4)));
        }
        Ok(())
    }

    /// Descriptors and revocations end with a checksum of their block.
    fn check_tail(&self, block: &[u8]) -> Result<(), FsError> {
        if !self.has(CHECKSUM_2 | CHECKSUM_3) {
            return Ok(());
        }
        let end = block.len() - 4;
        let found = crc32c(crc32c(self.checksum_seed, &block[..end]), &[0; 4]);
        if found == be_u32(block, end) {
            return Ok(());
        }
        Err(FsError::Checksum("a block of its journal".to_owned()))
    }

    fn commit_is_whole(&self, block: &[u8]) -> bool {
        if !self.has(CHECKSUM_2 | CHECKSUM_3) {
            return true;
        }
        let state = crc32c(crc32c(self.checksum_seed, &block[..16]), &[0; 4]);
        crc32c(state, &block[20..]) == be_u32(block, 16)
    }
}

/// Where the journal's inode says that its blocks are.
fn journal_extents(raw: &RawView, superblock: &Superblock) -> Result<Vec<Extent>, FsError> {
    let number = u64::from(superblock.u32(0xe0));
    let per_group = u64::from(superblock.u32(0x28));
    let (Some(index), false) = (number.checked_sub(1), per_group == 0) else {
        return unsupported("it has no inode");
    };
    let (group, index) = (index / per_group, index % per_group);
    let size = superblock.descriptor_size();
    let per_block = superblock.block_size / size;
    let descriptor_at =
        superblock.descriptor_block(group / per_block) * superblock.block_size + group % per_block * size;
    let mut descriptor = [0; 64];
    let known = (size as usize).min(descriptor.len());
    raw.read_at(descriptor_at, &mut descriptor[..known])?;
    let high = if known > 0x2c {
        u64::from(le_u32(&descriptor, 0x28))
    } else {
        0
    };
    let table = high << 32 | u64::from(le_u32(&descriptor, 0x8));
    let inode_size = u64::from(superblock.u16(0x58)).max(128);
    let at = table
        .checked_mul(superblock.block_size)
        .and_then(|at| at.checked_add(index * inode_size));
    let mut inode = [0; 128];
    raw.read_at(at.unwrap_or(u64::MAX), &mut inode)?;
    let mut found = Extents {
        raw,
        superblock,
        extents: Vec::new(),
    };
    const EXTENTS: u32 = 0x8_0000;
    let map = &inode[0x28..0x64];
    if le_u32(&inode, 0x20) & EXTENTS != 0 {
        found.tree(map, MAX_DEPTH)?;
    } else {
        found.indirect(map)?;
    }
    Ok(found.extents)
}

struct Extents<'a> {
    raw: &'a RawView,
    superblock: &'a Superblock,
    extents: Vec<Extent>,
}

impl Extents<'_> {
    fn push(&mut self, logical: u64, physical: u64, len: u64) -> Result<(), FsError> {
        let last = self.extents.last_mut();
        if let Some(last) =
            last.filter(|last| last.logical + last.len == logical && last.physical + last.len == physical)
        {
            last.len += len;
            return Ok(());
        }
        if self.extents.len() == MAX_EXTENTS {
            return unsupported("it is in too many pieces");
        }
        self.extents.push(Extent {
            logical,
            physical,
            len,
        });
        Ok(())
    }

    fn read(&self, block: u64) -> Result<Vec<u8>, FsError> {
        let mut content = vec![0; self.superblock.block_size as usize];
        let at = block.saturating_mul(self.superblock.block_size);
        self.raw.read_at(at, &mut content)?;
        Ok(content)
    }

    fn tree(&mut self, node: &[u8], levels: u16) -> Result<(), FsError> {
        let (magic, entries, depth) = (le_u16(node, 0), le_u16(node, 2), le_u16(node, 6));
        if magic != 0xf30a || depth > levels {
            return unsupported("its extents are damaged");
        }
        for entry in node[12..].chunks_exact(12).take(entries.into()) {
            if depth == 0 {
                let len = le_u16(entry, 4);
                // Longer ones are not written yet, which a journal has none of.
                if len > 0x8000 {
                    return unsupported("its extents are damaged");
                }
                let physical = u64::from(le_u16(entry, 6)) << 32 | u64::from(le_u32(entry, 8));
                self.push(le_u32(entry, 0).into(), physical, len.into())?;
            } else {
                let block = u64::from(le_u16(entry, 8)) << 32 | u64::from(le_u32(entry, 4));
                let below = self.read(block)?;
                self.tree(&below, depth - 1)?;
            }
        }
        Ok(())
    }

    /// Twelve blocks, and trees of one, two and three levels.
    fn indirect(&mut self, map: &[u8]) -> Result<(), FsError> {
        let mut logical = 0;
        for (i, block) in map
            .chunks_exact(4)
            .map(|block| u64::from(le_u32(block, 0)))
            .enumerate()
        {
            self.pointer(block, i.saturating_sub(11) as u32, &mut logical)?;
        }
        Ok(())
    }

    fn pointer(&mut self, block: u64, levels: u32, logical: &mut u64) -> Result<(), FsError> {
        let per_block = self.superblock.block_size / 4;
        if block == 0 {
            *logical += per_block.pow(levels);
            return Ok(());
        }
        if levels == 0 {
            self.push(*logical, block, 1)?;
            *logical += 1;
            return Ok(());
        }
        let below = self.read(block)?;
        for block in below.chunks_exact(4).map(|block| u64::from(le_u32(block, 0))) {
            self.pointer(block, levels - 1, logical)?;
        }
        Ok(())
    }
}

fn be_u32(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..)
        .and_then(<[u8]>::first_chunk)
        .map_or(0, |chunk| u32::from_be_bytes(*chunk))
}
