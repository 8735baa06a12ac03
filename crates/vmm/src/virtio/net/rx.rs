//! Receives packets for the guest.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::device::QUEUE_SIZE;
use super::packet::{HEADER_LEN, RX_HEADER, Slices};
use super::tap;
use crate::virtio::chain::{Chain, Malformed};
use crate::virtio::interrupt::ConfigInterrupt;
use crate::virtio::queue::{QueueError, Virtqueue};
use crate::virtio::worker::{Stop, Waiter};

/// Packets after which the guest is interrupted even though more are waiting.
const BATCH: u32 = 64;

pub(super) struct Receiver {
    tap: Arc<File>,
    queue: Virtqueue,
    doorbell: Waiter,
    packets: Waiter,
    chain: Chain,
}

/// What became of an attempt to receive.
enum Received {
    /// Bytes written, header included.
    Packet(u32),
    /// A packet that does not fit the buffer; it is lost, as on a wire.
    Oversize,
    Nothing,
    /// The TAP was deleted.
    Gone,
}

impl Receiver {
    pub(super) fn new(tap: Arc<File>, queue: Virtqueue, stop: &Stop) -> io::Result<Self> {
        Ok(Self {
            doorbell: stop.waiter(&queue)?,
            packets: stop.waiter(&*tap)?,
            chain: Chain::default(),
            tap,
            queue,
        })
    }

    pub(super) fn run(mut self, stop: &Stop, config_interrupt: &ConfigInterrupt) -> Virtqueue {
        if let Err(error) = self.receive_all(stop) {
            config_interrupt.needs_reset(&error);
        }
        self.queue
    }

    /// Sleeps for whichever is missing, a buffer or a packet, and never for both.
    fn receive_all(&mut self, stop: &Stop) -> Result<(), QueueError> {
        while self.take_buffer(stop)? {
            let outcome = self.fill_buffer(stop);
            self.queue.notify()?;
            if !outcome? {
                break;
            }
        }
        Ok(())
    }

    /// Takes the next buffer of the guest; false: the worker ends.
    fn take_buffer(&mut self, stop: &Stop) -> Result<bool, QueueError> {
        loop {
            if stop.requested() {
                return Ok(false);
            }
            if self.queue.pop(&mut self.chain, QUEUE_SIZE.into())? {
                self.queue.disable_doorbell()?;
                return Ok(true);
            }
            if !self.queue.enable_doorbell()? {
                if !self.doorbell.wait() {
                    return Ok(false);
                }
                self.queue.silence_doorbell();
            }
        }
    }

    /// Fills the buffer in hand and those after it, up to a batch; false: the worker ends.
    fn fill_buffer(&mut self, stop: &Stop) -> Result<bool, QueueError> {
        let mut filled = 0;
        loop {
            if stop.requested() {
                self.queue.undo_pop();
                return Ok(false);
            }
            match self.receive()? {
                Received::Packet(len) => {
                    self.queue.complete(&self.chain, len)?;
                    filled += 1;
                    if filled == BATCH || !self.queue.pop(&mut self.chain, QUEUE_SIZE.into())? {
                        return Ok(true);
                    }
                }
                Received::Oversize => {}
                Received::Nothing => {
                    self.queue.notify()?;
                    filled = 0;
                    // A stop is seen at the top.
                    let _ = self.packets.wait();
                }
                Received::Gone => {
                    self.queue.undo_pop();
                    return Ok(false);
                }
            }
        }
    }

    fn receive(&self) -> Result<Received, QueueError> {
        let refuse = |source| self.queue.malformed(source);
        if !self.chain.readable.is_empty() {
            return Err(refuse(Malformed::Direction));
        }
        let header_len = HEADER_LEN as u64;
        let room = self
            .chain
            .writable
            .len()
            .checked_sub(header_len)
            .ok_or(Malformed::TooShort);
        let room = room.map_err(refuse)?;
        let memory = self.queue.memory();
        // The TAP's own header says nothing without offloads. The byte behind the guest's buffers tells a packet
        // that fits from one that was cut off.
        let (mut header, mut overflow) = ([0; HEADER_LEN], [0]);
        let buffers = self.chain.writable.slices(memory, header_len);
        let packet = match Slices::new(&mut header, buffers, &mut overflow).read_from(&self.tap) {
            Ok(0) => return Ok(Received::Gone),
            Ok(len) => len.saturating_sub(HEADER_LEN) as u64,
            Err(error) => return Ok(failed(&error)),
        };
        if packet > room {
            return Ok(Received::Oversize);
        }
        self.chain.writable.write(memory, 0, &RX_HEADER).map_err(refuse)?;
        Ok(Received::Packet((packet + header_len) as u32))
    }
}

fn failed(error: &io::Error) -> Received {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Received::Nothing,
        _ => {
            if !tap::is_gone(error) {
                tracing::error!(%error, "a TAP cannot be read any more");
            }
            Received::Gone
        }
    }
}
