//! A virtqueue as its worker holds it: a [`virtio_queue::Queue`] with its doorbell and its interrupt. Virtio 1.2,
//! section 2.7.
//!
//! Descriptor chains, the available and the used ring, event indexes and notification suppression are the crate's.
//! [`QueueMemory`] makes its look-ups fast. What is added to it here:
//!
//! - Used elements are published by the batch ([`Unpublished`]).
//! - Without event indexes the driver's `VIRTQ_AVAIL_F_NO_INTERRUPT` is respected, which the crate ignores.
//! - With event indexes [`Virtqueue::disable_doorbell`] moves `avail_event` away. The crate leaves it, and the event that
//!   was asked for last is still due: a worker that something else has woken up would be rung for nothing, and each ring
//!   is an exit of the vCPU.

mod addresses;
mod memory;

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Queue, QueueOwnedT as _, QueueT as _};
use vm_memory::{Bytes as _, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use super::chain::{Chain, Malformed};
use super::interrupt::QueueInterrupt;
pub(super) use addresses::{InvalidQueue, QueueAddresses, ValidQueue};
pub use memory::QueueMemory;
use memory::{USED_INDEX, Unpublished};

/// Offset of the used elements in the used ring, and bytes of one (2.7.8).
const USED_ELEMENTS: u64 = 4;
const USED_ELEMENT_LEN: u64 = 8;

/// Why a queue cannot be served any more.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The available index is more than a ring ahead, or a ring cannot be accessed.
    #[error("virtqueue {index}: {source}")]
    Ring { index: u16, source: virtio_queue::Error },
    #[error("virtqueue {index}: {source}")]
    Malformed { index: u16, source: Malformed },
}

/// How far a device has come in a queue's rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    next_available: u16,
    next_used: u16,
}

/// A running virtqueue, owned by one worker.
pub struct Virtqueue {
    index: u16,
    queue: Queue,
    memory: QueueMemory,
    interrupt: QueueInterrupt,
    doorbell: EventFd,
    /// The used index that the driver sees. It is behind the queue's own while used elements are not published.
    published: u16,
    /// Used elements were published since the last [`Self::notify`].
    unnotified: bool,
}

impl Virtqueue {
    pub(super) fn new(index: u16, valid: ValidQueue, interrupt: QueueInterrupt, doorbell: EventFd) -> Self {
        let ValidQueue { queue, memory } = valid;
        Self {
            index,
            published: queue.next_used(),
            queue,
            memory,
            interrupt,
            doorbell,
            unnotified: false,
        }
    }

    pub(super) fn progress(&self) -> Progress {
        Progress {
            next_available: self.queue.next_avail(),
            next_used: self.published,
        }
    }

    pub(super) fn go_on_from(&mut self, progress: Progress) {
        self.queue.set_next_avail(progress.next_available);
        self.queue.set_next_used(progress.next_used);
        self.published = progress.next_used;
    }

    /// Goes on with a queue that no worker serves: all chains that were taken from it have been used.
    ///
    /// # Errors
    /// The used ring cannot be read.
    pub(super) fn go_on_as_used(mut self) -> Result<Self, QueueError> {
        let index = self.queue.used_idx(&self.memory, Ordering::Acquire);
        let index = index.map_err(|source| self.ring_error(source))?.0;
        self.go_on_from(Progress {
            next_available: index,
            next_used: index,
        });
        Ok(self)
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
    pub fn memory(&self) -> &QueueMemory {
        &self.memory
    }

    /// Takes the next available chain into `chain`; false if there is none.
    ///
    /// # Errors
    /// The ring or the chain breaks the rules.
    pub fn pop(&mut self, chain: &mut Chain, max_descriptors: usize) -> Result<bool, QueueError> {
        let index = self.index;
        let mut available = self
            .queue
            .iter(&self.memory)
            .map_err(|source| QueueError::Ring { index, source })?;
        let Some(descriptors) = available.next() else {
            return Ok(false);
        };
        chain
            .parse(descriptors, &self.memory, max_descriptors)
            .map(|()| true)
            .map_err(|source| QueueError::Malformed { index, source })
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

    /// Like [`Self::complete`], but the driver sees it with the next [`Self::publish`].
    ///
    /// # Errors
    /// The used ring cannot be written.
    pub fn fill(&mut self, chain: &Chain, written: u32) -> Result<(), QueueError> {
        chain.writable.mark_written(&self.memory, written);
        self.queue
            .add_used(&Unpublished(&self.memory), chain.head, written)
            .map_err(|source| self.ring_error(source))
    }

    /// Shows the driver what was filled.
    ///
    /// # Errors
    /// The used ring cannot be written.
    pub fn publish(&mut self) -> Result<(), QueueError> {
        let next = self.queue.next_used();
        if next == self.published {
            return Ok(());
        }
        self.store(self.queue.used_ring() + USED_INDEX, next, Ordering::Release)?;
        self.published = next;
        self.unnotified = true;
        Ok(())
    }

    /// Publishes what was filled, and interrupts the driver once for all chains that were completed since the last
    /// call, if it wants to know.
    ///
    /// # Errors
    /// The rings cannot be accessed.
    pub fn notify(&mut self) -> Result<(), QueueError> {
        // The crate counts what was filled as seen by the driver.
        self.publish()?;
        if std::mem::take(&mut self.unnotified) && self.driver_wants_interrupt()? {
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
            .map_err(|source| self.ring_error(source))
    }

    /// Tells the driver that the doorbell is not needed now.
    ///
    /// # Errors
    /// The used ring cannot be written.
    pub fn disable_doorbell(&mut self) -> Result<(), QueueError> {
        if !self.queue.event_idx_enabled() {
            return self
                .queue
                .disable_notification(&self.memory)
                .map_err(|source| self.ring_error(source));
        }
        // The index passes this event a whole turn from now (2.7.10).
        let event = self.queue.next_avail().wrapping_sub(1);
        let offset = USED_ELEMENTS + USED_ELEMENT_LEN * u64::from(self.queue.size());
        self.store(self.queue.used_ring() + offset, event, Ordering::Relaxed)
    }

    /// Whether there are chains to pop.
    ///
    /// # Errors
    /// The available ring cannot be read.
    pub fn has_available(&self) -> Result<bool, QueueError> {
        let index = self.queue.avail_idx(&self.memory, Ordering::Acquire);
        let index = index.map_err(|source| self.ring_error(source))?;
        Ok(index.0 != self.queue.next_avail())
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

    /// Whether the driver wants to know of the chains that were published since the last call (2.7.7).
    fn driver_wants_interrupt(&mut self) -> Result<bool, QueueError> {
        // Its fence keeps the driver's wish from being read before the used index is visible: otherwise a driver that
        // has just enabled interrupts and seen an empty ring would wait for ever.
        let due = self.queue.needs_notification(&self.memory);
        let due = due.map_err(|source| self.ring_error(source))?;
        if self.queue.event_idx_enabled() {
            return Ok(due);
        }
        let flags = GuestAddress(self.queue.avail_ring());
        let flags = self.memory.load::<u16>(flags, Ordering::Relaxed);
        let flags = flags.map_err(|source| self.ring_error(virtio_queue::Error::GuestMemory(source)))?;
        Ok(u32::from(u16::from_le(flags)) & VRING_AVAIL_F_NO_INTERRUPT == 0)
    }

    /// Writes a field of the used ring.
    fn store(&self, address: u64, value: u16, order: Ordering) -> Result<(), QueueError> {
        self.memory
            .store(value.to_le(), GuestAddress(address), order)
            .map_err(|source| self.ring_error(virtio_queue::Error::GuestMemory(source)))
    }

    fn ring_error(&self, source: virtio_queue::Error) -> QueueError {
        QueueError::Ring {
            index: self.index,
            source,
        }
    }
}

impl AsRawFd for Virtqueue {
    /// The doorbell, to wait for.
    fn as_raw_fd(&self) -> RawFd {
        self.doorbell.as_raw_fd()
    }
}

#[cfg(test)]
mod tests;
