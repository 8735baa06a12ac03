//! A virtqueue as its worker holds it: the split ring, its doorbell and its interrupt. Virtio 1.2, section 2.7.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemory as _, Permissions};
use vmm_sys_util::eventfd::EventFd;

use super::GuestMemory;
use super::chain::{Chain, Malformed};
use super::interrupt::QueueInterrupt;

/// Flags and index of the used ring; a used element; flags and index of the available ring.
const USED_HEADER_LEN: u64 = 4;
const USED_ELEMENT_LEN: u64 = 8;
const AVAILABLE_HEADER_LEN: u64 = 4;

/// Why a queue cannot be served any more.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The available index jumped, or the rings are not in guest memory.
    #[error("virtqueue {index}: the ring is broken: {source}")]
    Ring { index: u16, source: virtio_queue::Error },
    #[error("virtqueue {index}: {source}")]
    Malformed { index: u16, source: Malformed },
}

/// The registers of a queue that the driver wrote, not yet checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct QueueAddresses {
    pub(super) size: u16,
    pub(super) descriptor_table: u64,
    pub(super) available_ring: u64,
    pub(super) used_ring: u64,
}

/// Why a driver's queue was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidQueue {
    #[error("queue size {0} is no power of two up to the maximum")]
    Size(u16),
    #[error("the {area} at {address:#x} is not aligned to {alignment} bytes")]
    Alignment {
        area: &'static str,
        address: u64,
        alignment: u64,
    },
    #[error("the {area} at {address:#x} is not in guest memory")]
    OutsideMemory { area: &'static str, address: u64 },
}

impl QueueAddresses {
    /// Checks size, alignment (2.7) and that all three areas lie in guest memory, their event fields included.
    pub(super) fn validate(&self, max_size: u16, memory: &GuestMemory) -> Result<Queue, InvalidQueue> {
        let invalid_size = |_| InvalidQueue::Size(self.size);
        let mut queue = Queue::new(max_size).map_err(invalid_size)?;
        queue.try_set_size(self.size).map_err(invalid_size)?;
        let size = usize::from(self.size);
        let areas = [
            ("descriptor table", self.descriptor_table, 16, 16 * size),
            ("available ring", self.available_ring, 2, 6 + 2 * size),
            ("used ring", self.used_ring, 4, 6 + 8 * size),
        ];
        for (area, address, alignment, len) in areas {
            if !address.is_multiple_of(alignment) {
                return Err(InvalidQueue::Alignment {
                    area,
                    address,
                    alignment,
                });
            }
            // Address 0 is what a driver leaves that never set it, and `virtio-queue`'s mark of a reset queue.
            let inside = memory.check_range(GuestAddress(address), len, Permissions::ReadWrite);
            if address == 0 || !inside {
                return Err(InvalidQueue::OutsideMemory { area, address });
            }
        }
        let halves = |address: u64| (Some(address as u32), Some((address >> 32) as u32));
        let (low, high) = halves(self.descriptor_table);
        queue.set_desc_table_address(low, high);
        let (low, high) = halves(self.available_ring);
        queue.set_avail_ring_address(low, high);
        let (low, high) = halves(self.used_ring);
        queue.set_used_ring_address(low, high);
        queue.set_ready(true);
        Ok(queue)
    }
}

/// How far a device has come in a queue's rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    next_available: u16,
    next_used: u16,
}

impl Progress {
    /// That of a queue that nobody serves: whatever was taken from it has been used.
    pub(super) fn of_used_ring(
        addresses: &QueueAddresses,
        memory: &GuestMemory,
    ) -> Result<Self, InvalidQueue> {
        let address = addresses.used_ring.wrapping_add(2);
        let index = memory.load::<u16>(GuestAddress(address), Ordering::Acquire);
        let outside = |_| InvalidQueue::OutsideMemory {
            area: "used ring",
            address,
        };
        let index = u16::from_le(index.map_err(outside)?);
        Ok(Self {
            next_available: index,
            next_used: index,
        })
    }
}

/// A running virtqueue, owned by one worker.
pub struct Virtqueue {
    index: u16,
    queue: Queue,
    memory: GuestMemory,
    interrupt: QueueInterrupt,
    doorbell: EventFd,
    /// Used elements that are written behind the used index, so that the driver does not see them yet.
    filled: u16,
    /// Chains were completed since the last [`Self::notify`], the first as this used index.
    completed_from: Option<u16>,
}

impl Virtqueue {
    pub(super) fn new(
        index: u16,
        queue: Queue,
        memory: GuestMemory,
        interrupt: QueueInterrupt,
        doorbell: EventFd,
    ) -> Self {
        Self {
            index,
            queue,
            memory,
            interrupt,
            doorbell,
            filled: 0,
            completed_from: None,
        }
    }

    pub(super) fn progress(&self) -> Progress {
        Progress {
            next_available: self.queue.next_avail(),
            next_used: self.queue.next_used(),
        }
    }

    pub(super) fn go_on_from(&mut self, progress: Progress) {
        self.queue.set_next_avail(progress.next_available);
        self.queue.set_next_used(progress.next_used);
    }

    /// Interrupts the driver whether there is something new or not: it looks and finds out.
    pub(super) fn interrupt_anyway(&self) {
        self.interrupt.signal();
    }

    /// The queue's number within its device.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Entries of the ring.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.queue.size()
    }

    #[must_use]
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// Takes the next available chain into `chain`; false if there is none.
    ///
    /// # Errors
    /// The ring or the chain breaks the rules.
    pub fn pop(&mut self, chain: &mut Chain, max_descriptors: usize) -> Result<bool, QueueError> {
        let mut available = self.queue.iter(&self.memory).map_err(ring_error(self.index))?;
        match available.next() {
            Some(descriptors) => chain
                .parse(descriptors, &self.memory, max_descriptors)
                .map(|()| true)
                .map_err(|source| self.malformed(source)),
            None => Ok(false),
        }
    }

    /// Puts the chain of the last [`Self::pop`] back, unserved.
    pub fn undo_pop(&mut self) {
        self.queue.go_to_previous_position();
    }

    /// Gives `chain` back to the driver, with the first `written` bytes of its writable buffers filled.
    ///
    /// # Errors
    /// The used ring cannot be written.
    pub fn complete(&mut self, chain: &Chain, written: u32) -> Result<(), QueueError> {
        self.fill(chain, written)?;
        self.publish()
    }

    /// Like [`Self::complete`], but the driver sees it with the next [`Self::publish`]: for what spans several
    /// chains and must be seen as one.
    ///
    /// # Errors
    /// The used ring cannot be written.
    pub fn fill(&mut self, chain: &Chain, written: u32) -> Result<(), QueueError> {
        chain.writable.mark_written(&self.memory, written);
        let slot = self.queue.next_used().wrapping_add(self.filled) % self.queue.size();
        // It cannot overflow: the ring was checked to lie in memory.
        let address =
            GuestAddress(self.queue.used_ring() + USED_HEADER_LEN + USED_ELEMENT_LEN * u64::from(slot));
        let element = u64::from(written) << 32 | u64::from(chain.head);
        self.memory
            .write_obj(element.to_le(), address)
            .map_err(virtio_queue::Error::GuestMemory)
            .map_err(ring_error(self.index))?;
        self.filled += 1;
        Ok(())
    }

    /// Shows the driver what was filled.
    ///
    /// # Errors
    /// The used ring cannot be written.
    pub fn publish(&mut self) -> Result<(), QueueError> {
        let from = self.queue.next_used();
        let next = from.wrapping_add(std::mem::take(&mut self.filled));
        self.completed_from.get_or_insert(from);
        self.queue.set_next_used(next);
        self.memory
            .store(
                next.to_le(),
                GuestAddress(self.queue.used_ring() + 2),
                Ordering::Release,
            )
            .map_err(virtio_queue::Error::GuestMemory)
            .map_err(ring_error(self.index))
    }

    /// Interrupts the driver once for all chains completed since the last call, if it wants to know.
    ///
    /// # Errors
    /// The rings cannot be read.
    pub fn notify(&mut self) -> Result<(), QueueError> {
        if let Some(from) = self.completed_from.take()
            && self.driver_wants_interrupt(from)?
        {
            self.interrupt.signal();
        }
        Ok(())
    }

    /// Asks the driver to ring the doorbell for the next chain. True: there are chains already, the caller must
    /// look again before it sleeps.
    ///
    /// # Errors
    /// The rings cannot be accessed.
    pub fn enable_doorbell(&mut self) -> Result<bool, QueueError> {
        self.queue
            .enable_notification(&self.memory)
            .map_err(ring_error(self.index))
    }

    /// Tells the driver that the doorbell is not needed now.
    ///
    /// # Errors
    /// The rings cannot be written.
    pub fn disable_doorbell(&mut self) -> Result<(), QueueError> {
        if !self.queue.event_idx_enabled() {
            return self
                .queue
                .disable_notification(&self.memory)
                .map_err(ring_error(self.index));
        }
        // The event that was asked for last is still due. This one is a whole turn of the index away (2.7.10).
        let event = self.queue.next_avail().wrapping_sub(1);
        let address =
            self.queue.used_ring() + USED_HEADER_LEN + USED_ELEMENT_LEN * u64::from(self.queue.size());
        self.memory
            .store(event.to_le(), GuestAddress(address), Ordering::Relaxed)
            .map_err(virtio_queue::Error::GuestMemory)
            .map_err(ring_error(self.index))
    }

    /// Whether there are chains to pop.
    ///
    /// # Errors
    /// The ring cannot be read.
    pub fn has_available(&self) -> Result<bool, QueueError> {
        let index = self.queue.avail_idx(&self.memory, Ordering::Acquire);
        Ok(index.map_err(ring_error(self.index))?.0 != self.queue.next_avail())
    }

    /// Forgets rings of the doorbell so far; call it after waking up and before looking for chains.
    pub fn silence_doorbell(&self) {
        // That it had not been rung is no error, and an event counter has no other.
        let _ = self.doorbell.read();
    }

    /// Names this queue in an error about a request.
    #[must_use]
    pub fn malformed(&self, source: Malformed) -> QueueError {
        QueueError::Malformed {
            index: self.index,
            source,
        }
    }

    /// Whether the driver wants to know of the chains that were completed since used index `from` (2.7.7).
    fn driver_wants_interrupt(&self, from: u16) -> Result<bool, QueueError> {
        // The driver's wish is read after the used index is visible, or a driver that has just re-enabled
        // interrupts and seen an empty ring would wait for ever.
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.queue.event_idx_enabled() {
            let used_event =
                self.available_ring_field(AVAILABLE_HEADER_LEN + 2 * u64::from(self.queue.size()))?;
            let next = self.queue.next_used();
            return Ok(next.wrapping_sub(used_event).wrapping_sub(1) < next.wrapping_sub(from));
        }
        let flags = self.available_ring_field(0)?;
        Ok(u32::from(flags) & VRING_AVAIL_F_NO_INTERRUPT == 0)
    }

    fn available_ring_field(&self, offset: u64) -> Result<u16, QueueError> {
        self.memory
            .load(GuestAddress(self.queue.avail_ring() + offset), Ordering::Relaxed)
            .map(u16::from_le)
            .map_err(virtio_queue::Error::GuestMemory)
            .map_err(ring_error(self.index))
    }
}

impl AsRawFd for Virtqueue {
    /// The doorbell, to wait for.
    fn as_raw_fd(&self) -> RawFd {
        self.doorbell.as_raw_fd()
    }
}

fn ring_error(index: u16) -> impl Fn(virtio_queue::Error) -> QueueError {
    move |source| QueueError::Ring { index, source }
}
