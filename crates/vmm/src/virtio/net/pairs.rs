//! The TAP's queues, one for each pair of virtqueues, and how many of them the kernel feeds.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use super::tap::Tap;

/// All queues of one TAP interface.
pub(super) struct Pairs {
    taps: Vec<Arc<Tap>>,
    in_use: AtomicU16,
}

impl Pairs {
    pub(super) fn new(taps: Vec<Tap>) -> Self {
        Self {
            taps: taps.into_iter().map(Arc::new).collect(),
            in_use: AtomicU16::new(1),
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> u16 {
        self.taps.len() as u16
    }

    pub(super) fn taps(&self) -> &[Arc<Tap>] {
        &self.taps
    }

    /// How many the driver uses.
    pub(super) fn in_use(&self) -> u16 {
        self.in_use.load(Ordering::Acquire)
    }

    /// Notes how many the driver uses, for the next [`Self::set`].
    pub(super) fn note(&self, pairs: u16) {
        self.in_use.store(pairs, Ordering::Release);
    }

    /// Uses the first `pairs`: the kernel gives packets to no other.
    ///
    /// # Errors
    /// The TAP was deleted, or has one queue only.
    pub(super) fn set(&self, pairs: u16) -> io::Result<()> {
        for (index, tap) in (0..).zip(&self.taps) {
            tap.set_attached(index < pairs)?;
        }
        self.note(pairs);
        Ok(())
    }

    /// What the kernel may leave to the guest: a mask of `TUN_F_*`.
    ///
    /// # Errors
    /// The TAP was deleted.
    pub(super) fn set_offloads(&self, offloads: u32) -> io::Result<()> {
        // They are the interface's, not the queue's.
        self.taps.first().map_or(Ok(()), |tap| tap.set_offloads(offloads))
    }

    /// Offloads that the kernel knows: a mask of `TUN_F_*`.
    pub(super) fn offloads(&self) -> u32 {
        self.taps.first().map_or(0, |tap| tap.offloads())
    }
}
