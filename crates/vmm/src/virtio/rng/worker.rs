//! Fills buffers with random bytes. A request is no more than buffers to fill, so there is nothing to parse.

use std::io;
use std::time::Instant;

use crate::limits::Throttle;
use crate::metrics::{Operation, QueueMeter};
use crate::random;
use crate::virtio::QueueMemory;
use crate::virtio::chain::{Chain, Malformed};
use crate::virtio::worker::{Handler, Stop, Waiter};

/// Bytes that one request gets at most; a driver asks again for more. Linux asks for 64 at a time.
const REQUEST_LEN: usize = 4096;

pub(super) struct RngHandler {
    buffer: [u8; REQUEST_LEN],
    throttle: Throttle,
    /// Wakes up when the throttle may admit again.
    admission: Waiter,
    meter: QueueMeter,
}

impl RngHandler {
    pub(super) fn new(throttle: Throttle, stop: &Stop, meter: QueueMeter) -> io::Result<Self> {
        Ok(Self {
            buffer: [0; REQUEST_LEN],
            admission: stop.waiter(&throttle)?,
            throttle,
            meter,
        })
    }
}

impl Drop for RngHandler {
    fn drop(&mut self) {
        self.throttle.end_wait(Instant::now());
    }
}

fn request_len(chain: &Chain) -> usize {
    usize::try_from(chain.writable.len()).map_or(REQUEST_LEN, |len| len.min(REQUEST_LEN))
}

impl Handler for RngHandler {
    const MAX_DESCRIPTORS: usize = 64;

    fn admits(&mut self, chain: &Chain) -> bool {
        self.throttle.admit(1, request_len(chain) as u64)
    }

    fn wait_until_admitted(&mut self, chain: &Chain) -> bool {
        let since = Instant::now();
        let admitted = loop {
            if !self.admission.wait() {
                break false;
            }
            if self.admits(chain) {
                break true;
            }
        };
        self.meter.throttled(Operation::Read, since.elapsed());
        admitted
    }

    fn handle(&mut self, chain: &Chain, memory: &QueueMemory) -> Result<u32, Malformed> {
        if !chain.readable.is_empty() {
            return Err(Malformed::Direction);
        }
        if chain.writable.is_empty() {
            return Err(Malformed::TooShort);
        }
        let begin = Instant::now();
        let len = request_len(chain);
        let bytes = &mut self.buffer[..len];
        if let Err(error) = random::fill(bytes) {
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
