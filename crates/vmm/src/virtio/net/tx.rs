//! Sends the guest's packets.

use std::fs::File;
use std::sync::Arc;

use super::device::QUEUE_SIZE;
use super::packet::{HEADER_LEN, Slices};
use crate::virtio::GuestMemory;
use crate::virtio::chain::{Chain, Malformed};
use crate::virtio::worker::Handler;

/// Ethernet header and one VLAN tag.
const FRAME_OVERHEAD: u64 = 14 + 4;

pub(super) struct TxHandler {
    tap: Arc<File>,
    /// Bytes of the longest frame that the interface's MTU allows.
    max_frame: u64,
}

impl TxHandler {
    pub(super) fn new(tap: Arc<File>, mtu: u16) -> Self {
        Self {
            tap,
            max_frame: u64::from(mtu) + FRAME_OVERHEAD,
        }
    }
}

impl Handler for TxHandler {
    const MAX_DESCRIPTORS: usize = QUEUE_SIZE as usize;

    fn handle(&mut self, chain: &Chain, memory: &GuestMemory) -> Result<u32, Malformed> {
        if !chain.writable.is_empty() {
            return Err(Malformed::Direction);
        }
        let header_len = HEADER_LEN as u64;
        let frame = chain
            .readable
            .len()
            .checked_sub(header_len)
            .ok_or(Malformed::TooShort)?;
        if frame > self.max_frame {
            return Ok(0);
        }
        // The guest's header is not passed on: offloads that were not agreed upon must not reach the kernel.
        let mut header = [0; HEADER_LEN];
        let slices = Slices::new(&mut header, chain.readable.slices(memory, header_len), &mut []);
        // A network drops what it cannot carry: a full queue, an interface that is down or gone, no whole frame.
        let _ = slices.write_to(&self.tap);
        Ok(0)
    }
}
