//! Sends the guest's packets, each by one system call straight from the guest's buffers.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use zerocopy::IntoBytes;

use super::device::{Activated, QUEUE_SIZE};
use super::offloads::{HEADER_LEN, Header, Refused, Sending, segments};
use super::tap::Tap;
use crate::limits::Throttle;
use crate::metrics::{Operation, QueueMeter};
use crate::virtio::GuestMemory;
use crate::virtio::chain::{Chain, Malformed};
use crate::virtio::interrupt::ConfigInterrupt;
use crate::virtio::queue::{QueueError, Virtqueue};
use crate::virtio::vectors::Vectors;
use crate::virtio::worker::{Stop, Waiter};

pub(super) struct Transmitter {
    tap: Arc<Tap>,
    queue: Virtqueue,
    sending: Sending,
    vectors: Vectors,
    throttle: Throttle,
    meter: QueueMeter,
    doorbell: Waiter,
    throttle_over: Waiter,
}

impl Transmitter {
    pub(super) fn new(queue: Virtqueue, with: Activated, stop: &Stop) -> io::Result<Self> {
        Ok(Self {
            doorbell: stop.waiter(&queue)?,
            throttle_over: stop.waiter(&with.throttle)?,
            sending: Sending::new(with.features, with.mtu),
            vectors: Vectors::default(),
            throttle: with.throttle,
            meter: with.meter,
            tap: with.tap,
            queue,
        })
    }

    pub(super) fn run(mut self, stop: &Stop, config_interrupt: &ConfigInterrupt) -> Virtqueue {
        if let Err(error) = self.send_all(stop) {
            config_interrupt.needs_reset(&error);
        }
        self.throttle.end_wait(Instant::now());
        self.queue
    }

    fn send_all(&mut self, stop: &Stop) -> Result<(), QueueError> {
        let mut chain = Chain::default();
        while !stop.requested() {
            self.queue.disable_doorbell()?;
            let sent = self.send_batch(&mut chain, stop);
            // Also when a chain was broken: those before it are done.
            self.queue.notify()?;
            if sent? && !self.queue.enable_doorbell()? {
                // A stop is seen at the top.
                let _ = self.doorbell.wait();
                self.queue.silence_doorbell();
            }
        }
        Ok(())
    }

    /// Sends at most a ring's worth of packets, so that a driver that never stops adding gets its interrupts.
    /// True: there are no more.
    fn send_batch(&mut self, chain: &mut Chain, stop: &Stop) -> Result<bool, QueueError> {
        for _ in 0..self.queue.size() {
            if stop.requested() {
                return Ok(false);
            }
            if !self.queue.pop(chain, QUEUE_SIZE.into())? {
                return Ok(true);
            }
            let begin = Instant::now();
            let packet = Packet::parse(chain, self.queue.memory(), &self.sending);
            match packet.map_err(|source| self.queue.malformed(source))? {
                Ok(packet) => {
                    let Some(throttled) = self.admit(&packet)? else {
                        self.queue.undo_pop();
                        return Ok(false);
                    };
                    match self.send(packet.header, chain) {
                        Ok(()) => {
                            let took = begin.elapsed().saturating_sub(throttled);
                            self.meter.completed(Operation::Transmit, packet.len, took);
                        }
                        Err(()) => self.meter.failed(Operation::Transmit, begin.elapsed()),
                    }
                }
                Err(_refused) => self.meter.failed(Operation::Transmit, begin.elapsed()),
            }
            self.queue.complete(chain, 0)?;
        }
        Ok(false)
    }

    /// Waits until the rate limit lets the packet pass, and says how long; nothing: the worker ends.
    fn admit(&mut self, packet: &Packet) -> Result<Option<Duration>, QueueError> {
        let segments = segments(&packet.header, packet.len);
        if self.throttle.admit(segments, packet.len) {
            return Ok(Some(Duration::ZERO));
        }
        // The packets of the batch do not wait with this one.
        self.queue.notify()?;
        let since = Instant::now();
        while !self.throttle.admit(segments, packet.len) {
            if !self.throttle_over.wait() {
                return Ok(None);
            }
        }
        let waited = since.elapsed();
        self.meter.throttled(Operation::Transmit, waited);
        Ok(Some(waited))
    }

    /// A network drops what it cannot carry: a full queue, an interface that is down or gone, no whole frame, a
    /// header that the kernel finds wrong.
    fn send(&mut self, mut header: Header, chain: &Chain) -> Result<(), ()> {
        self.vectors.clear();
        self.vectors.push_own(header.as_mut_bytes());
        let memory = self.queue.memory();
        self.vectors
            .extend_guest(chain.readable.slices(memory, HEADER_LEN as u64));
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
        memory: &GuestMemory,
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
