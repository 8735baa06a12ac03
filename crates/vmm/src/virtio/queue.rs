//! A virtqueue as its worker holds it: the split ring, its doorbell and its interrupt. Virtio 1.2, section 2.7.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{Ordering, fence};

use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_ring::{VRING_AVAIL_F_NO_INTERRUPT, VRING_USED_F_NO_NOTIFY};
use vmm_sys_util::eventfd::EventFd;

use super::GuestMemory;
use super::chain::{Chain, Malformed};
use super::interrupt::QueueInterrupt;
use super::ring::Ring;

/// Why a queue cannot be served any more.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    #[error("virtqueue {index}: more chains are available than the ring has entries")]
    AvailableIndex { index: u16 },
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
    ring: Ring,
    /// Each side says from which element on it wants to be told (`VIRTIO_F_EVENT_IDX`), and not only whether.
    event_idx: bool,
    next_available: u16,
    /// The available index when it was last read: it is the driver's cache line.
    available: u16,
    next_used: u16,
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
        ring: Ring,
        event_idx: bool,
        interrupt: QueueInterrupt,
        doorbell: EventFd,
    ) -> Self {
        Self {
            index,
            ring,
            event_idx,
            next_available: 0,
            available: 0,
            next_used: 0,
            interrupt,
            doorbell,
            filled: 0,
            completed_from: None,
        }
    }

    pub(super) fn progress(&self) -> Progress {
        Progress {
            next_available: self.next_available,
            next_used: self.next_used,
        }
    }

    pub(super) fn go_on_from(&mut self, progress: Progress) {
        self.next_available = progress.next_available;
        self.available = progress.next_available;
        self.next_used = progress.next_used;
    }

    /// Goes on with a queue that nobody serves: whatever was taken from it has been used.
    pub(super) fn go_on_as_used(&mut self) {
        let index = self.ring.used_index();
        self.go_on_from(Progress {
            next_available: index,
            next_used: index,
        });
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
        self.ring.size()
    }

    #[must_use]
    pub fn memory(&self) -> &GuestMemory {
        self.ring.memory()
    }

    /// Takes the next available chain into `chain`; false if there is none.
    ///
    /// # Errors
    /// The ring or the chain breaks the rules.
    pub fn pop(&mut self, chain: &mut Chain, max_descriptors: usize) -> Result<bool, QueueError> {
        if self.next_available == self.available {
            self.available = self.ring.available_index();
            let count = self.available.wrapping_sub(self.next_available);
            if count > self.ring.size() {
                return Err(QueueError::AvailableIndex { index: self.index });
            }
            if count == 0 {
                return Ok(false);
            }
        }
        let head = self.ring.available_head(self.next_available);
        self.next_available = self.next_available.wrapping_add(1);
        chain
            .parse(head, self.ring.table(), self.ring.memory(), max_descriptors)
            .map(|()| true)
            .map_err(|source| self.malformed(source))
    }

    /// Puts the chain of the last [`Self::pop`] back, unserved.
    pub fn undo_pop(&mut self) {
        self.next_available = self.next_available.wrapping_sub(1);
    }

    /// Gives `chain` back to the driver, with the first `written` bytes of its writable buffers filled.
    pub fn complete(&mut self, chain: &Chain, written: u32) {
        self.fill(chain, written);
        self.publish();
    }

    /// Like [`Self::complete`], but the driver sees it with the next [`Self::publish`]: for what must be seen as one,
    /// and so that the driver's processor is not asked for the used index's cache line again and again.
    pub fn fill(&mut self, chain: &Chain, written: u32) {
        chain.writable.mark_written(self.ring.memory(), written);
        let position = self.next_used.wrapping_add(self.filled);
        self.ring.set_used_element(position, chain.head, written);
        self.filled = self.filled.wrapping_add(1);
    }

    /// Shows the driver what was filled.
    pub fn publish(&mut self) {
        if self.filled == 0 {
            return;
        }
        let from = self.next_used;
        self.next_used = from.wrapping_add(std::mem::take(&mut self.filled));
        self.completed_from.get_or_insert(from);
        self.ring.set_used_index(self.next_used);
    }

    /// Interrupts the driver once for all chains completed since the last call, if it wants to know.
    pub fn notify(&mut self) {
        if let Some(from) = self.completed_from.take()
            && self.driver_wants_interrupt(from)
        {
            self.interrupt.signal();
        }
    }

    /// Asks the driver to ring the doorbell for the next chain. True: there are chains already, the caller must
    /// look again before it sleeps.
    pub fn enable_doorbell(&mut self) -> bool {
        if self.event_idx {
            self.ring.set_available_event(self.next_available);
        } else {
            self.ring.set_used_flags(0);
        }
        // The driver reads the wish after it has written its index: one of both sides sees the other's.
        fence(Ordering::SeqCst);
        self.has_available()
    }

    /// Tells the driver that the doorbell is not needed now.
    pub fn disable_doorbell(&mut self) {
        if self.event_idx {
            // The event that was asked for last is still due. This one is a whole turn of the index away (2.7.10).
            self.ring.set_available_event(self.next_available.wrapping_sub(1));
        } else {
            self.ring.set_used_flags(VRING_USED_F_NO_NOTIFY as u16);
        }
    }

    /// Whether there are chains to pop.
    #[must_use]
    pub fn has_available(&self) -> bool {
        self.ring.available_index() != self.next_available
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
    fn driver_wants_interrupt(&self, from: u16) -> bool {
        // The driver's wish is read after the used index is visible, or a driver that has just re-enabled
        // interrupts and seen an empty ring would wait for ever.
        fence(Ordering::SeqCst);
        if self.event_idx {
            let behind = self.next_used.wrapping_sub(self.ring.used_event());
            return behind.wrapping_sub(1) < self.next_used.wrapping_sub(from);
        }
        u32::from(self.ring.available_flags()) & VRING_AVAIL_F_NO_INTERRUPT == 0
    }
}

impl AsRawFd for Virtqueue {
    /// The doorbell, to wait for.
    fn as_raw_fd(&self) -> RawFd {
        self.doorbell.as_raw_fd()
    }
}
