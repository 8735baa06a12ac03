//! Fills buffers with random bytes. A request is no more than buffers to fill, so there is nothing to parse.

use std::time::Instant;

use crate::metrics::{Operation, QueueMeter};
use crate::virtio::GuestMemory;
use crate::virtio::chain::{Chain, Malformed};
use crate::virtio::worker::Handler;

/// Bytes that one request gets at most; a driver asks again for more. Linux asks for 64 at a time.
const REQUEST_LEN: usize = 4096;

pub(super) struct RngHandler {
    buffer: [u8; REQUEST_LEN],
    meter: QueueMeter,
}

impl RngHandler {
    pub(super) fn new(meter: QueueMeter) -> Self {
        Self {
            buffer: [0; REQUEST_LEN],
            meter,
        }
    }
}

impl Handler for RngHandler {
    const MAX_DESCRIPTORS: usize = 64;

    fn handle(&mut self, chain: &Chain, memory: &GuestMemory) -> Result<u32, Malformed> {
        if !chain.readable.is_empty() {
            return Err(Malformed::Direction);
        }
        if chain.writable.is_empty() {
            return Err(Malformed::TooShort);
        }
        let begin = Instant::now();
        let len = usize::try_from(chain.writable.len()).map_or(REQUEST_LEN, |len| len.min(REQUEST_LEN));
        let bytes = &mut self.buffer[..len];
        if let Err(error) = getrandom::fill(bytes) {
            self.meter.failed(Operation::Read, begin.elapsed());
            // The driver sees a request that yielded nothing and asks again.
            tracing::error!(%error, "the host has no random bytes");
            return Ok(0);
        }
        chain.writable.write(memory, 0, bytes)?;
        self.meter.completed(Operation::Read, len as u64, begin.elapsed());
        Ok(len as u32)
    }
}
