//! Sends the guest's packets, each by one system call straight from the guest's buffers.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use zerocopy::IntoBytes;

use super::device::{Activated, QUEUE_SIZE};
use super::offloads::{HEADER_LEN, Header, Refused, Sending, segments};
use super::tap::Tap;
use crate::limits::Throttle;
use crate::metrics::{Operation, QueueMeter, lap};
use crate::virtio::QueueMemory;
use crate::virtio::chain::{Chain, Malformed};
use crate::virtio::queue::{QueueError, Virtqueue};
use crate::virtio::vectors::Vectors;
use crate::virtio::worker::Waiter;

/// Packets after which the other direction has its turn.
const BATCH: u32 = 64;

pub(super) struct Transmitter {
    tap: Arc<Tap>,
    queue: Virtqueue,
    sending: Sending,
    vectors: Vectors,
    chain: Chain,
    throttle: Throttle,
    /// Since when the rate limit has held the next packet back.
    held_since: Option<Instant>,
    meter: QueueMeter,
}

impl Transmitter {
    pub(super) fn new(queue: Virtqueue, with: Activated) -> Self {
        Self {
            sending: Sending::new(with.features, with.mtu),
            vectors: Vectors::default(),
            chain: Chain::default(),
            throttle: with.throttle,
            held_since: None,
            meter: with.meter,
            tap: with.tap,
            queue,
        }
    }

    /// # Errors
    /// A descriptor cannot be waited for.
    pub(super) fn watch(&self, events: &Waiter) -> io::Result<()> {
        events.also_edges_of(&self.queue)?;
        events.also_edges_of(&self.throttle)
    }

    pub(super) fn end(mut self) -> Virtqueue {
        self.throttle.end_wait(Instant::now());
        self.queue
    }

    /// Sends what there is, as far as the rate limit allows. True: there may be more.
    ///
    /// # Errors
    /// The ring or a chain is broken.
    pub(super) fn turn(&mut self) -> Result<bool, QueueError> {
        self.queue.disable_doorbell()?;
        let sent = self.send_batch();
        // Also when a chain was broken: those before it are done.
        self.queue.notify()?;
        sent
    }

    /// Has the doorbell rung for the next packet. True: there is one already.
    ///
    /// # Errors
    /// The rings cannot be accessed.
    pub(super) fn prepare_to_wait(&mut self) -> Result<bool, QueueError> {
        // A packet that is held back waits for time alone.
        Ok(self.held_since.is_none() && self.queue.enable_doorbell()?)
    }

    fn send_batch(&mut self) -> Result<bool, QueueError> {
        let mut begin = Instant::now();
        for _ in 0..BATCH {
            if !self.queue.pop(&mut self.chain, QUEUE_SIZE.into())? {
                return Ok(false);
            }
            let packet = Packet::parse(&self.chain, self.queue.memory(), &self.sending);
            match packet.map_err(|source| self.queue.malformed(source))? {
                Ok(packet) => {
                    if !self.admit(&packet) {
                        self.queue.undo_pop();
                        return Ok(false);
                    }
                    let sent = self.send(packet.header);
                    let took = lap(&mut begin);
                    match sent {
                        Ok(()) => self.meter.completed(Operation::Transmit, packet.len, took),
                        Err(()) => self.meter.failed(Operation::Transmit, took),
                    }
                }
                Err(_refused) => self.meter.failed(Operation::Transmit, lap(&mut begin)),
            }
            self.queue.fill(&self.chain, 0)?;
        }
        Ok(true)
    }

    /// Whether the rate limit lets the packet pass now.
    fn admit(&mut self, packet: &Packet) -> bool {
        if !self
            .throttle
            .admit(segments(&packet.header, packet.len), packet.len)
        {
            self.held_since.get_or_insert_with(Instant::now);
            return false;
        }
        if let Some(since) = self.held_since.take() {
            self.meter.throttled(Operation::Transmit, since.elapsed());
        }
        true
    }

    /// A network drops what it cannot carry: a full queue, an interface that is down or gone, no whole frame, a
    /// header that the kernel finds wrong.
    fn send(&mut self, mut header: Header) -> Result<(), ()> {
        self.vectors.clear();
        self.vectors.push_own(header.as_mut_bytes());
        self.vectors
            .extend_host(self.chain.readable.host_ranges(HEADER_LEN as u64));
        // SAFETY: the header and the queue's memory outlive the call.
        let sent = unsafe { self.vectors.write_to(self.tap.file()) };
        sent.map(drop).map_err(drop)
    }
}

/// A packet that may be sent.
struct Packet {
    /// As it was checked: what stands in guest memory may change meanwhile.
    header: Header,
    /// Bytes of the frame.
    len: u64,
}

impl Packet {
    fn parse(
        chain: &Chain,
        memory: &QueueMemory,
        sending: &Sending,
    ) -> Result<Result<Self, Refused>, Malformed> {
        if !chain.writable.is_empty() {
            return Err(Malformed::Direction);
        }
        let len = chain
            .readable
            .len()
            .checked_sub(HEADER_LEN as u64)
            .ok_or(Malformed::TooShort)?;
        let mut header = Header::default();
        chain.readable.read(memory, 0, header.as_mut_bytes())?;
        Ok(sending.check(header, len).map(|header| Self { header, len }))
    }
}
