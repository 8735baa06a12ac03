//! The superblock and the places of group descriptors (Linux's `Documentation/filesystems/ext4`).

use crc::{CRC_32_ISCSI, Crc, Table};

use super::super::FsError;
use crate::bytes::{le_u16, le_u32};

/// Byte of the file system at which the superblock begins, and its length.
pub(super) const START: u64 = 1024;
pub(super) const LEN: usize = 1024;
/// Byte of the file system at which its magic is.
pub(super) const MAGIC: u64 = START + 0x38;
const CHECKSUM: usize = 0x3fc;
const INCOMPAT: usize = 0x60;

/// Limits of what the superblock may say before it is believed.
const MAX_LOG_BLOCK_SIZE: u32 = 6;
/// A file system of 16 TiB has as many.
const MAX_BLOCK_GROUPS: u64 = 1 << 17;

const COMPAT_SPARSE_SUPER2: u32 = 0x200;
const INCOMPAT_RECOVER: u32 = 0x4;
const INCOMPAT_META_BG: u32 = 0x10;
const INCOMPAT_64BIT: u32 = 0x80;
const RO_COMPAT_SPARSE_SUPER: u32 = 0x1;
const RO_COMPAT_METADATA_CSUM: u32 = 0x400;

static CRC32C: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// CRC-32C as ext4 and jbd2 continue it: without inversion at the end.
pub(super) fn crc32c(state: u32, bytes: &[u8]) -> u32 {
    let mut digest = CRC32C.digest_with_initial(state.reverse_bits());
    digest.update(bytes);
    !digest.finalize()
}

#[derive(Clone)]
pub(super) struct Superblock {
    bytes: Vec<u8>,
    /// Bytes.
    pub(super) block_size: u64,
    pub(super) blocks: u64,
    first_data_block: u64,
    blocks_per_group: u64,
}

impl Superblock {
    /// `bytes` is the superblock, `len` the length of the region in bytes.
    pub(super) fn parse(bytes: Vec<u8>, len: u64) -> Result<Superblock, FsError> {
        let mut superblock = Superblock {
            bytes,
            block_size: 0,
            blocks: 0,
            first_data_block: 0,
            blocks_per_group: 0,
        };
        if superblock.bytes.get(0x38..0x3a) != Some(&[0x53, 0xef]) {
            return Err(FsError::Unknown);
        }
        let log_block_size = superblock.u32(0x18);
        if log_block_size > MAX_LOG_BLOCK_SIZE {
            return Err(FsError::Superblock);
        }
        superblock.block_size = 1024 << log_block_size;
        // The upper half counts only in 64-bit file systems, and is zero in others.
        superblock.blocks = u64::from(superblock.u32(0x150)) << 32 | u64::from(superblock.u32(0x4));
        superblock.first_data_block = superblock.u32(0x14).into();
        superblock.blocks_per_group = superblock.u32(0x20).into();
        let bytes = superblock.blocks.checked_mul(superblock.block_size);
        let fits = bytes.is_some_and(|bytes| bytes <= len)
            && superblock.blocks_per_group > 0
            && superblock.blocks / superblock.blocks_per_group <= MAX_BLOCK_GROUPS;
        if !fits {
            return Err(FsError::Superblock);
        }
        if superblock.has_checksum() && superblock.u32(CHECKSUM) != superblock.checksum() {
            return Err(FsError::Checksum("its superblock".to_owned()));
        }
        Ok(superblock)
    }

    pub(super) fn u16(&self, at: usize) -> u16 {
        le_u16(&self.bytes, at)
    }

    pub(super) fn u32(&self, at: usize) -> u32 {
        le_u32(&self.bytes, at)
    }

    fn incompat(&self, feature: u32) -> bool {
        self.u32(INCOMPAT) & feature != 0
    }

    fn has_checksum(&self) -> bool {
        self.u32(0x64) & RO_COMPAT_METADATA_CSUM != 0
    }

    fn checksum(&self) -> u32 {
        crc32c(!0, &self.bytes[..CHECKSUM.min(self.bytes.len())])
    }

    /// The file system was not unmounted: its journal may hold what is newer than the rest.
    pub(super) fn needs_recovery(&self) -> bool {
        self.incompat(INCOMPAT_RECOVER)
    }

    pub(super) fn has_meta_bg(&self) -> bool {
        self.incompat(INCOMPAT_META_BG)
    }

    /// Bytes of a group descriptor.
    pub(super) fn descriptor_size(&self) -> u64 {
        if self.incompat(INCOMPAT_64BIT) {
            u64::from(self.u16(0xfe)).max(32)
        } else {
            32
        }
    }

    /// As a reader should see it that knows neither journals nor `meta_bg`, with a checksum that fits.
    pub(super) fn simplified(&self) -> Vec<u8> {
        let mut simple = self.clone();
        let features = self.u32(INCOMPAT) & !(INCOMPAT_RECOVER | INCOMPAT_META_BG);
        simple.bytes[INCOMPAT..INCOMPAT + 4].copy_from_slice(&features.to_le_bytes());
        if simple.has_checksum() {
            let checksum = simple.checksum();
            simple.bytes[CHECKSUM..].copy_from_slice(&checksum.to_le_bytes());
        }
        simple.bytes
    }

    /// The block that holds the n-th block of the group descriptor table (Linux's `descriptor_loc`).
    pub(super) fn descriptor_block(&self, n: u64) -> u64 {
        if !self.has_meta_bg() || n < u64::from(self.u32(0x104)) {
            return self.first_data_block + 1 + n;
        }
        let group = n * (self.block_size / self.descriptor_size());
        let behind_superblock = u64::from(self.has_superblock(group));
        // With blocks of 1 KiB and no block for the boot sector, group 0 begins with it.
        let boot_block = u64::from(self.block_size == 1024 && n == 0 && self.first_data_block == 0);
        self.first_data_block + group * self.blocks_per_group + behind_superblock + boot_block
    }

    /// Whether a group begins with a copy of the superblock.
    fn has_superblock(&self, group: u64) -> bool {
        if group == 0 {
            return true;
        }
        if self.u32(0x5c) & COMPAT_SPARSE_SUPER2 != 0 {
            return [0x24c, 0x250].iter().any(|at| u64::from(self.u32(*at)) == group);
        }
        if group == 1 || self.u32(0x64) & RO_COMPAT_SPARSE_SUPER == 0 {
            return true;
        }
        let is_power_of = |base: u64| {
            let mut power = base;
            while power < group {
                power *= base;
            }
            power == group
        };
        [3, 5, 7].into_iter().any(is_power_of)
    }
}
