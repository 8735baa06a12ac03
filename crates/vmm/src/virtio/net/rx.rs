//! Receives packets for the guest, each by one system call straight into the guest's buffers.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use virtio_bindings::virtio_net::{VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_MRG_RXBUF};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U16;

use super::device::{Activated, QUEUE_SIZE};
use super::offloads::{HEADER_LEN, Header, largest_received};
use super::posted::Posted;
use super::tap::{self, Tap};
use crate::limits::Throttle;
use crate::metrics::{Operation, QueueMeter, lap};
use crate::virtio::queue::{QueueError, Virtqueue};
use crate::virtio::worker::Waiter;

/// Packets after which the other direction has its turn. When the guest's acknowledgements are sent, the host's kernel
/// makes a stream's next packets in this thread: that costs less, the more there are to make at once.
const BATCH: u32 = 256;
/// Bytes after which it has its turn, too: packets of 64 KiB reach this first.
const BATCH_BYTES: u64 = 1 << 20;
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
    /// Bytes of a packet that has been read and is not yet the driver's: there are too few buffers for it, or the
    /// rate limit holds it back.
    arrived: Option<u64>,
    /// Since when the rate limit has held it back.
    held_since: Option<Instant>,
    /// Nothing goes on without another buffer.
    lacks_buffers: bool,
    /// The TAP was deleted.
    gone: bool,
    throttle: Throttle,
    meter: QueueMeter,
}

/// Whether a packet that was read finds room.
enum Room {
    Found,
    /// The driver has to post more buffers.
    Lacking,
    /// It is lost, as on a wire.
    Never,
}

impl Receiver {
    pub(super) fn new(queue: Virtqueue, with: Activated) -> Self {
        let mergeable = with.has(VIRTIO_NET_F_MRG_RXBUF);
        Self {
            posted: Posted::new(queue.memory().ram().clone()),
            wanted: if mergeable {
                largest_received(with.features, with.mtu)
            } else {
                1
            },
            mergeable,
            checksums: with.has(VIRTIO_NET_F_GUEST_CSUM),
            arrived: None,
            held_since: None,
            lacks_buffers: false,
            gone: false,
            throttle: with.throttle,
            meter: with.meter,
            tap: with.tap,
            queue,
        }
    }

    /// # Errors
    /// A descriptor cannot be waited for.
    pub(super) fn watch(&self, events: &Waiter) -> io::Result<()> {
        events.also_edges_of(&self.queue)?;
        events.also_edges_of(&*self.tap)?;
        events.also_edges_of(&self.throttle)
    }

    pub(super) fn end(mut self) -> Virtqueue {
        self.throttle.end_wait(Instant::now());
        // The next worker finds the buffers where this one did.
        while self.posted.take().is_some() {
            self.queue.undo_pop();
        }
        self.queue
    }

    /// Receives what there is, as far as buffers and the rate limit allow. True: there may be more.
    ///
    /// # Errors
    /// The ring or a buffer is broken.
    pub(super) fn turn(&mut self) -> Result<bool, QueueError> {
        if self.gone {
            return Ok(false);
        }
        self.queue.disable_doorbell()?;
        self.lacks_buffers = false;
        let received = self.receive_batch();
        // Also when a buffer was broken: the packets before it are there. All at once, and so all buffers of a packet
        // too: a driver that saw only the first would drop it (5.1.6.4).
        self.queue.notify()?;
        received
    }

    /// Has the doorbell rung for the next buffer, if it is wanted. True: there is one already.
    ///
    /// # Errors
    /// The rings cannot be accessed.
    pub(super) fn prepare_to_wait(&mut self) -> Result<bool, QueueError> {
        Ok(self.lacks_buffers && self.queue.enable_doorbell()?)
    }

    fn receive_batch(&mut self) -> Result<bool, QueueError> {
        let mut begin = Instant::now();
        let mut bytes = 0;
        for nth in 0..BATCH {
            if bytes >= BATCH_BYTES {
                break;
            }
            let Some(len) = self.next_packet()? else {
                return Ok(false);
            };
            bytes += len;
            match self.find_room(len)? {
                Room::Found if !self.admit(len) => return Ok(false),
                Room::Found => {
                    self.finish(len)?;
                    if nth == 0 {
                        // A driver that polls is at it while the next one, if there is one, is read.
                        self.queue.publish()?;
                    }
                    let frame = len - HEADER_LEN as u64;
                    let took = lap(&mut begin);
                    self.meter.completed(Operation::Receive, frame, took);
                }
                Room::Lacking => {
                    self.lacks_buffers = true;
                    return Ok(false);
                }
                Room::Never => self.meter.failed(Operation::Receive, lap(&mut begin)),
            }
            self.arrived = None;
        }
        Ok(true)
    }

    /// The length of the packet at hand, or of the next one, which is read; there may be none, or no buffer for it.
    fn next_packet(&mut self) -> Result<Option<u64>, QueueError> {
        if self.arrived.is_none() {
            self.take_buffers()?;
            if self.posted.is_empty() {
                self.lacks_buffers = true;
                return Ok(None);
            }
            match self.posted.read_from(self.tap.file()) {
                Ok(0) => self.gone = true,
                Ok(len) => self.arrived = Some(len),
                Err(error) => self.gone = !is_nothing(&error),
            }
        }
        Ok(self.arrived)
    }

    /// Takes buffers until there are enough for any packet, or no more of them.
    fn take_buffers(&mut self) -> Result<(), QueueError> {
        while self.posted.len() < self.wanted && self.posted.has_room() {
            let mut chain = self.posted.blank();
            if !self.queue.pop(&mut chain, QUEUE_SIZE.into())? {
                self.posted.recycle(chain);
                break;
            }
            self.posted
                .push(chain)
                .map_err(|source| self.queue.malformed(source))?;
        }
        Ok(())
    }

    /// Has all of a packet of `len` bytes in buffers, with what further buffers there are.
    fn find_room(&mut self, len: u64) -> Result<Room, QueueError> {
        if len < HEADER_LEN as u64 {
            return Ok(Room::Never);
        }
        if len <= self.posted.len() {
            return Ok(Room::Found);
        }
        while self.mergeable && self.posted.has_room() {
            let mut chain = self.posted.blank();
            if !self.queue.pop(&mut chain, QUEUE_SIZE.into())? {
                self.posted.recycle(chain);
                // A ring whose buffers together are too small never brings one more.
                let all_posted = self.posted.count() == usize::from(self.queue.size());
                return Ok(if all_posted { Room::Never } else { Room::Lacking });
            }
            let all = self.posted.spill_into(chain, self.queue.memory());
            if all.map_err(|source| self.queue.malformed(source))? {
                return Ok(Room::Found);
            }
        }
        Ok(Room::Never)
    }

    /// Whether the rate limit lets a packet of `len` bytes pass now.
    fn admit(&mut self, len: u64) -> bool {
        if !self.throttle.admit(1, len - HEADER_LEN as u64) {
            self.held_since.get_or_insert_with(Instant::now);
            return false;
        }
        if let Some(since) = self.held_since.take() {
            self.meter.throttled(Operation::Receive, since.elapsed());
        }
        true
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
        Ok(())
    }
}

/// Whether a read failed because there is no packet now; otherwise there will be none any more.
fn is_nothing(error: &io::Error) -> bool {
    let nothing = matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    );
    if !nothing && !tap::is_gone(error) {
        tracing::error!(%error, "a TAP cannot be read any more");
    }
    nothing
}
