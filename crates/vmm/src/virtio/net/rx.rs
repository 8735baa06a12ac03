//! Receives packets for the guest, each by one system call straight into the guest's buffers.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use virtio_bindings::virtio_net::{VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_MRG_RXBUF};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U16;

use super::device::{Activated, QUEUE_SIZE};
use super::offloads::{HEADER_LEN, Header, MAX_RECEIVED};
use super::posted::Posted;
use super::tap::{self, Tap};
use crate::limits::Throttle;
use crate::metrics::{Operation, QueueMeter};
use crate::virtio::interrupt::ConfigInterrupt;
use crate::virtio::queue::{QueueError, Virtqueue};
use crate::virtio::worker::{Stop, Waiter};

/// Packets after which the guest is interrupted even though more are waiting.
const BATCH: u32 = 64;
/// `num_buffers` in the header.
const NUM_BUFFERS_OFFSET: u64 = 10;

pub(super) struct Receiver {
    tap: Arc<Tap>,
    queue: Virtqueue,
    posted: Posted,
    /// Bytes of buffers that are wanted before a packet is read.
    wanted: u64,
    mergeable: bool,
    checksums: bool,
    throttle: Throttle,
    meter: QueueMeter,
    doorbell: Waiter,
    packets: Waiter,
    throttle_over: Waiter,
}

/// What became of an attempt to receive.
enum Received {
    Packet,
    /// A packet that was lost, as on a wire.
    Dropped,
    Nothing,
    /// The TAP was deleted, or the worker shall stop.
    End,
}

impl Receiver {
    pub(super) fn new(queue: Virtqueue, with: Activated, stop: &Stop) -> io::Result<Self> {
        let mergeable = with.has(VIRTIO_NET_F_MRG_RXBUF);
        Ok(Self {
            doorbell: stop.waiter(&queue)?,
            packets: stop.waiter(&*with.tap)?,
            throttle_over: stop.waiter(&with.throttle)?,
            posted: Posted::new(queue.memory().clone()),
            wanted: if mergeable { MAX_RECEIVED } else { 1 },
            mergeable,
            checksums: with.has(VIRTIO_NET_F_GUEST_CSUM),
            throttle: with.throttle,
            meter: with.meter,
            tap: with.tap,
            queue,
        })
    }

    pub(super) fn run(mut self, stop: &Stop, config_interrupt: &ConfigInterrupt) -> Virtqueue {
        if let Err(error) = self.receive_all(stop) {
            config_interrupt.needs_reset(&error);
        }
        self.throttle.end_wait(Instant::now());
        // The next worker finds the buffers where this one did.
        while self.posted.take().is_some() {
            self.queue.undo_pop();
        }
        self.queue
    }

    /// Sleeps for whichever is missing, a buffer or a packet, and never for both.
    fn receive_all(&mut self, stop: &Stop) -> Result<(), QueueError> {
        let mut batch = 0;
        while !stop.requested() && self.take_buffers()? {
            match self.receive(stop)? {
                Received::Packet if batch < BATCH => batch += 1,
                Received::Dropped => {}
                Received::Packet => {
                    self.queue.notify()?;
                    batch = 0;
                }
                Received::Nothing => {
                    self.queue.notify()?;
                    batch = 0;
                    // A stop is seen at the top.
                    let _ = self.packets.wait();
                }
                Received::End => break,
            }
        }
        self.queue.notify()
    }

    /// Takes buffers until there are enough for any packet, or no more of them; waits for the first. False: the
    /// worker ends.
    fn take_buffers(&mut self) -> Result<bool, QueueError> {
        while self.posted.len() < self.wanted && self.posted.has_room() {
            let mut chain = self.posted.blank();
            if self.queue.pop(&mut chain, QUEUE_SIZE.into())? {
                self.posted
                    .push(chain)
                    .map_err(|source| self.queue.malformed(source))?;
                continue;
            }
            self.posted.recycle(chain);
            if !self.posted.is_empty() {
                break;
            }
            if !self.wait_for_buffer()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn receive(&mut self, stop: &Stop) -> Result<Received, QueueError> {
        let len = match self.posted.read_from(self.tap.file()) {
            Ok(0) => return Ok(Received::End),
            Ok(len) => len,
            Err(error) => return Ok(failed(&error)),
        };
        let begin = Instant::now();
        if len < HEADER_LEN as u64 || !self.find_room(len)? {
            self.meter.failed(Operation::Receive, begin.elapsed());
            return Ok(if stop.requested() {
                Received::End
            } else {
                Received::Dropped
            });
        }
        let frame = len - HEADER_LEN as u64;
        if !self.throttle.admit(1, frame) {
            let since = Instant::now();
            // The packets of the batch do not wait with this one.
            self.queue.notify()?;
            while !self.throttle.admit(1, frame) {
                if !self.throttle_over.wait() {
                    return Ok(Received::End);
                }
            }
            self.meter.throttled(Operation::Receive, since.elapsed());
        }
        self.finish(len)?;
        self.meter.completed(Operation::Receive, frame, begin.elapsed());
        Ok(Received::Packet)
    }

    /// Makes sure that all of a packet of `len` bytes is in buffers; false: it cannot be, or the worker ends.
    fn find_room(&mut self, len: u64) -> Result<bool, QueueError> {
        if len <= self.posted.len() {
            return Ok(true);
        }
        if !self.mergeable {
            return Ok(false);
        }
        while self.posted.has_room() {
            let mut chain = self.posted.blank();
            if self.queue.pop(&mut chain, QUEUE_SIZE.into())? {
                let all = self.posted.spill_into(chain);
                if all.map_err(|source| self.queue.malformed(source))? {
                    return Ok(true);
                }
                continue;
            }
            self.posted.recycle(chain);
            // A ring whose buffers together are too small never brings one more.
            let all_posted = self.posted.count() == usize::from(self.queue.size());
            if all_posted || !self.wait_for_buffer()? {
                break;
            }
        }
        Ok(false)
    }

    /// Completes the header of a packet of `len` bytes, and gives the packet to the driver.
    fn finish(&mut self, len: u64) -> Result<(), QueueError> {
        let buffers = self.posted.filled_by(len);
        if let Some(first) = self.posted.first() {
            let header = Header {
                num_buffers: U16::new(buffers),
                ..Header::default()
            };
            // Without checksum offload the header says nothing else, not even that a checksum was found good.
            let from = if self.checksums { NUM_BUFFERS_OFFSET } else { 0 };
            let bytes = header.as_bytes().get(from as usize..).unwrap_or_default();
            let written = first.writable.write(self.queue.memory(), from, bytes);
            written.map_err(|source| self.queue.malformed(source))?;
        }
        let mut left = len;
        for _ in 0..buffers {
            let Some(chain) = self.posted.take() else { break };
            let part = left.min(chain.writable.len());
            left -= part;
            self.queue.fill(&chain, u32::try_from(part).unwrap_or(u32::MAX))?;
            self.posted.recycle(chain);
        }
        // All buffers of a packet at once: a driver that saw only the first would drop it (5.1.6.4.1).
        self.queue.publish()
    }

    /// Sleeps until the driver has posted a buffer; false: the worker ends.
    fn wait_for_buffer(&mut self) -> Result<bool, QueueError> {
        self.queue.notify()?;
        let go_on = self.queue.enable_doorbell()? || self.doorbell.wait();
        self.queue.silence_doorbell();
        self.queue.disable_doorbell()?;
        Ok(go_on)
    }
}

fn failed(error: &io::Error) -> Received {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Received::Nothing,
        _ => {
            if !tap::is_gone(error) {
                tracing::error!(%error, "a TAP cannot be read any more");
            }
            Received::End
        }
    }
}
