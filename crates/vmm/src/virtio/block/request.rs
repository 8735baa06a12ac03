//! Block requests as the driver writes them: `struct virtio_blk_req`. Virtio 1.2, section 5.2.6.

use hearth_block::SECTOR;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_ID_BYTES, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD,
    VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
    VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, IntoBytes};

use super::device::SEG_MAX;
use crate::virtio::QueueMemory;
use crate::virtio::chain::{Chain, Malformed};

pub(super) const SERIAL_LEN: usize = VIRTIO_BLK_ID_BYTES as usize;
pub(super) const HEADER_LEN: u64 = size_of::<Header>() as u64;
const STATUS_LEN: u64 = 1;
/// `struct virtio_blk_discard_write_zeroes`: sector, sectors, flags.
const RANGE_LEN: u64 = 16;

/// Bytes of one data buffer, and of all of a request's.
pub(super) const SIZE_MAX: u32 = 1 << 20;
const LEN_MAX: u64 = SIZE_MAX as u64 * SEG_MAX as u64;
/// Ranges of a request.
pub(super) const MAX_RANGES: u32 = 16;
/// Sectors of a range: 1 GiB to be forgotten, 64 MiB to be zeroed, which may mean to be written.
pub(super) const MAX_DISCARD_SECTORS: u32 = 1 << 21;
pub(super) const MAX_ZEROES_SECTORS: u32 = 1 << 17;

/// The readable start of `struct virtio_blk_req`.
#[derive(Default, FromBytes, IntoBytes)]
#[repr(C)]
struct Header {
    /// A `VIRTIO_BLK_T_*`.
    kind: U32,
    reserved: U32,
    /// Of reads and writes: where they begin.
    sector: U64,
}

/// The answer in the last byte of the writable buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Status {
    Ok = VIRTIO_BLK_S_OK as u8,
    IoErr = VIRTIO_BLK_S_IOERR as u8,
    Unsupported = VIRTIO_BLK_S_UNSUPP as u8,
}

/// A request that can be carried out. Offsets and lengths are bytes; they are inside the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    Read { offset: u64, len: u64 },
    Write { offset: u64, len: u64 },
    Flush,
    GetId,
    Discard(Vec<Range>),
    WriteZeroes(Vec<Range>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) offset: u64,
    pub(super) len: u64,
    /// Its space may be given back.
    pub(super) unmap: bool,
}

/// The disk that a request is for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    /// Bytes.
    pub(super) size: u64,
    pub(super) read_only: bool,
    /// The driver may discard, and write zeroes.
    pub(super) discards: bool,
    pub(super) zeroes: bool,
}

/// A parsed chain: somewhere to put the answer, and the request or the answer that refuses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parsed {
    /// Where the status byte is in the writable buffers; all before it is for data.
    pub(super) status_at: u64,
    pub(super) request: Result<Request, Status>,
}

impl Parsed {
    /// # Errors
    /// There is no whole header, or no room for a status: such a request cannot even be refused.
    pub(super) fn parse(chain: &Chain, memory: &QueueMemory, target: &Target) -> Result<Self, Malformed> {
        let mut header = Header::default();
        chain.readable.read(memory, 0, header.as_mut_bytes())?;
        let status_at = chain
            .writable
            .len()
            .checked_sub(STATUS_LEN)
            .ok_or(Malformed::TooShort)?;
        let data_out = chain.readable.len() - HEADER_LEN;
        let range = |len| match range(header.sector.get(), len, target.size) {
            Ok(offset) if len <= LEN_MAX => Ok((offset, len)),
            _ => Err(Status::IoErr),
        };
        let request = match header.kind.get() {
            VIRTIO_BLK_T_IN if data_out == 0 => {
                range(status_at).map(|(offset, len)| Request::Read { offset, len })
            }
            VIRTIO_BLK_T_OUT if status_at == 0 && !target.read_only => {
                range(data_out).map(|(offset, len)| Request::Write { offset, len })
            }
            VIRTIO_BLK_T_FLUSH => Ok(Request::Flush),
            VIRTIO_BLK_T_GET_ID if status_at >= SERIAL_LEN as u64 => Ok(Request::GetId),
            VIRTIO_BLK_T_DISCARD if target.discards => {
                // There is no way to discard and keep the space (5.2.6.2).
                ranges(chain, memory, target, MAX_DISCARD_SECTORS, 0)?.map(Request::Discard)
            }
            VIRTIO_BLK_T_WRITE_ZEROES if target.zeroes => {
                let flags = VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
                ranges(chain, memory, target, MAX_ZEROES_SECTORS, flags)?.map(Request::WriteZeroes)
            }
            // The data lie in the wrong direction, or have no room.
            VIRTIO_BLK_T_IN | VIRTIO_BLK_T_OUT | VIRTIO_BLK_T_GET_ID => Err(Status::IoErr),
            _ => Err(Status::Unsupported),
        };
        Ok(Self { status_at, request })
    }
}

/// The byte offset of a range of whole sectors inside the disk.
fn range(sector: u64, len: u64, disk_size: u64) -> Result<u64, Status> {
    let capacity = disk_size / SECTOR * SECTOR;
    let offset = sector.checked_mul(SECTOR).ok_or(Status::IoErr)?;
    let end = offset.checked_add(len).ok_or(Status::IoErr)?;
    if end <= capacity && len.is_multiple_of(SECTOR) {
        Ok(offset)
    } else {
        Err(Status::IoErr)
    }
}

/// The ranges behind the header, each of at most `max_sectors`, with no flags but `flags`.
fn ranges(
    chain: &Chain,
    memory: &QueueMemory,
    target: &Target,
    max_sectors: u32,
    flags: u32,
) -> Result<Result<Vec<Range>, Status>, Malformed> {
    let data = chain.readable.len() - HEADER_LEN;
    let count = data / RANGE_LEN;
    let fits = (1..=u64::from(MAX_RANGES)).contains(&count) && data.is_multiple_of(RANGE_LEN);
    if !fits || chain.writable.len() != STATUS_LEN || target.read_only {
        return Ok(Err(Status::IoErr));
    }
    let mut ranges = Vec::new();
    for nth in 0..count {
        let (mut sector, mut sectors, mut set) = ([0; 8], [0; 4], [0; 4]);
        let at = HEADER_LEN + nth * RANGE_LEN;
        chain.readable.read(memory, at, &mut sector)?;
        chain.readable.read(memory, at + 8, &mut sectors)?;
        chain.readable.read(memory, at + 12, &mut set)?;
        let (sectors, set) = (u32::from_le_bytes(sectors), u32::from_le_bytes(set));
        if set & !flags != 0 {
            return Ok(Err(Status::Unsupported));
        }
        let len = u64::from(sectors) * SECTOR;
        match range(u64::from_le_bytes(sector), len, target.size) {
            Ok(_) if sectors == 0 => {}
            Ok(offset) if sectors <= max_sectors => ranges.push(Range {
                offset,
                len,
                unmap: set != 0,
            }),
            _ => return Ok(Err(Status::IoErr)),
        }
    }
    Ok(Ok(ranges))
}
