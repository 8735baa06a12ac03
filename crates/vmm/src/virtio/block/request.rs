//! Block requests as the driver writes them: `struct virtio_blk_req`. Virtio 1.2, section 5.2.6.

use hearth_block::SECTOR;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_ID_BYTES, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_FLUSH,
    VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
};

use crate::virtio::GuestMemory;
use crate::virtio::chain::{Chain, Malformed};

pub(super) const SERIAL_LEN: usize = VIRTIO_BLK_ID_BYTES as usize;
/// Type, reserved, sector.
pub(super) const HEADER_LEN: u64 = 16;
const STATUS_LEN: u64 = 1;

/// The answer in the last byte of the writable buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Status {
    Ok = VIRTIO_BLK_S_OK as u8,
    IoErr = VIRTIO_BLK_S_IOERR as u8,
    Unsupported = VIRTIO_BLK_S_UNSUPP as u8,
}

/// A request that can be carried out. Offsets and lengths are bytes; they are inside the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    Read { offset: u64, len: u64 },
    Write { offset: u64, len: u64 },
    Flush,
    GetId,
}

/// A parsed chain: somewhere to put the answer, and the request or the answer that refuses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parsed {
    /// Where the status byte is in the writable buffers; all before it is for data.
    pub(super) status_at: u64,
    pub(super) request: Result<Request, Status>,
}

impl Parsed {
    /// # Errors
    /// There is no whole header, or no room for a status: such a request cannot even be refused.
    pub(super) fn parse(chain: &Chain, memory: &GuestMemory, disk_size: u64) -> Result<Self, Malformed> {
        let mut kind = [0; 4];
        let mut sector = [0; 8];
        chain.readable.read(memory, 0, &mut kind)?;
        chain.readable.read(memory, 8, &mut sector)?;
        let status_at = chain
            .writable
            .len()
            .checked_sub(STATUS_LEN)
            .ok_or(Malformed::TooShort)?;
        let sector = u64::from_le_bytes(sector);
        let data_out = chain.readable.len() - HEADER_LEN;
        let request = match u32::from_le_bytes(kind) {
            VIRTIO_BLK_T_IN if data_out == 0 => {
                range(sector, status_at, disk_size).map(|offset| Request::Read {
                    offset,
                    len: status_at,
                })
            }
            VIRTIO_BLK_T_OUT if status_at == 0 => {
                range(sector, data_out, disk_size).map(|offset| Request::Write {
                    offset,
                    len: data_out,
                })
            }
            VIRTIO_BLK_T_FLUSH => Ok(Request::Flush),
            VIRTIO_BLK_T_GET_ID if status_at >= SERIAL_LEN as u64 => Ok(Request::GetId),
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
