//! The I/O of a block queue: requests in order, each through a bounded buffer.

use std::io;
use std::sync::Arc;

use hearth_block::Disk;

use super::device::QUEUE_SIZE;
use super::request::{Parsed, Request, SERIAL_LEN, Status};
use crate::virtio::GuestMemory;
use crate::virtio::chain::{Chain, Malformed};
use crate::virtio::worker::Handler;

/// Bytes that one call to the disk moves at most; longer requests take several.
const BUFFER_LEN: usize = 256 * 1024;
/// Failed requests that are logged, per activation: a full disk fails every write.
const LOGGED_FAILURES: u32 = 16;

pub(super) struct BlockHandler {
    disk: Arc<dyn Disk>,
    serial: [u8; SERIAL_LEN],
    read_only: bool,
    /// Flush after each write, for a driver that does not do it.
    write_through: bool,
    buffer: Vec<u8>,
    failures: u32,
}

/// Why a request was not carried out.
enum Failure {
    Disk(io::Error),
    Malformed(Malformed),
}

impl From<io::Error> for Failure {
    fn from(source: io::Error) -> Self {
        Self::Disk(source)
    }
}

impl From<Malformed> for Failure {
    fn from(source: Malformed) -> Self {
        Self::Malformed(source)
    }
}

impl BlockHandler {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        serial: [u8; SERIAL_LEN],
        read_only: bool,
        write_through: bool,
    ) -> Self {
        Self {
            disk,
            serial,
            read_only,
            write_through,
            buffer: vec![0; BUFFER_LEN],
            failures: 0,
        }
    }

    /// Carries a request out and says how many bytes of data it put into the writable buffers.
    fn execute(&mut self, request: Request, chain: &Chain, memory: &GuestMemory) -> Result<u64, Failure> {
        match request {
            Request::Read { offset, len } => {
                self.in_pieces(len, |disk, at, piece| {
                    disk.read_at(piece, offset + at)?;
                    Ok(chain.writable.write(memory, at, piece)?)
                })?;
                Ok(len)
            }
            Request::Write { .. } if self.read_only => {
                Err(io::Error::from(io::ErrorKind::ReadOnlyFilesystem).into())
            }
            Request::Write { offset, len } => {
                self.in_pieces(len, |disk, at, piece| {
                    chain
                        .readable
                        .read(memory, super::request::HEADER_LEN + at, piece)?;
                    Ok(disk.write_at(piece, offset + at)?)
                })?;
                if self.write_through {
                    self.disk.flush()?;
                }
                Ok(0)
            }
            Request::Flush => {
                self.disk.flush()?;
                Ok(0)
            }
            Request::GetId => {
                chain.writable.write(memory, 0, &self.serial)?;
                Ok(SERIAL_LEN as u64)
            }
        }
    }

    /// Calls `step` for each piece of a request of `len` bytes, with its offset in the request and the buffer.
    fn in_pieces(
        &mut self,
        len: u64,
        mut step: impl FnMut(&dyn Disk, u64, &mut [u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut at = 0;
        while at < len {
            let piece_len = usize::try_from(len - at).unwrap_or(BUFFER_LEN).min(BUFFER_LEN);
            let piece = &mut self.buffer[..piece_len];
            step(self.disk.as_ref(), at, piece)?;
            at += piece_len as u64;
        }
        Ok(())
    }

    fn log(&mut self, request: Request, error: &io::Error) {
        self.failures = self.failures.saturating_add(1);
        if self.failures <= LOGGED_FAILURES {
            let serial = String::from_utf8_lossy(&self.serial);
            tracing::warn!(%error, ?request, serial = serial.trim_end_matches('\0'), "a disk request failed");
        }
    }
}

impl Handler for BlockHandler {
    const MAX_DESCRIPTORS: usize = QUEUE_SIZE as usize;

    fn handle(&mut self, chain: &Chain, memory: &GuestMemory) -> Result<u32, Malformed> {
        let Parsed { status_at, request } = Parsed::parse(chain, memory, self.disk.size())?;
        let (status, data) = match request {
            Ok(request) => match self.execute(request, chain, memory) {
                Ok(data) => (Status::Ok, data),
                Err(Failure::Disk(error)) => {
                    self.log(request, &error);
                    (Status::IoErr, 0)
                }
                Err(Failure::Malformed(source)) => return Err(source),
            },
            Err(status) => (status, 0),
        };
        chain.writable.write(memory, status_at, &[status as u8])?;
        // The used length counts bytes from the start without a gap: the status only if all before it is filled.
        let written = if data == status_at { data + 1 } else { data };
        Ok(u32::try_from(written).unwrap_or(u32::MAX))
    }
}
