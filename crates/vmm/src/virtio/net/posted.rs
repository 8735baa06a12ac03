//! The receive buffers that the driver posted and that wait for a packet.
//!
//! With mergeable buffers a packet takes as many as it needs, and how many that is shows only when it has been
//! read: so it is read into all of them at once, and what they cannot hold goes to a place of our own.

use std::collections::VecDeque;
use std::fs::File;
use std::io;

use super::offloads::{HEADER_LEN, MAX_RECEIVED};
use crate::virtio::chain::{Chain, Malformed};
use crate::virtio::vectors::{MAX_VECTORS, Vectors};
use crate::virtio::{GuestMemory, QueueMemory};

/// Vectors that one more chain and the spill may take.
const VECTORS_LEFT: usize = 2 * super::device::QUEUE_SIZE as usize + 1;

pub(super) struct Posted {
    /// Keeps mapped what the vectors point at.
    _memory: GuestMemory,
    /// In the driver's order, each with its number of vectors.
    buffers: VecDeque<(Chain, usize)>,
    vectors: Vectors,
    /// Bytes of all buffers.
    len: u64,
    /// Chains to parse into, so that none is allocated per packet.
    spare: Vec<Chain>,
    spill: Box<[u8]>,
    /// Bytes in `spill`.
    spilled: usize,
}

impl Posted {
    pub(super) fn new(memory: GuestMemory) -> Self {
        Self {
            _memory: memory,
            buffers: VecDeque::new(),
            vectors: Vectors::default(),
            len: 0,
            spare: Vec::new(),
            // Not touched, and so without memory, until a packet is larger than the buffers.
            spill: vec![0; MAX_RECEIVED as usize].into_boxed_slice(),
            spilled: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buffers.is_empty()
    }

    pub(super) fn count(&self) -> usize {
        self.buffers.len()
    }

    /// Bytes of all buffers.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Whether another buffer of whatever shape can be taken.
    pub(super) fn has_room(&self) -> bool {
        self.vectors.len() + VECTORS_LEFT <= MAX_VECTORS
    }

    /// An unused chain, to parse the next buffer into.
    pub(super) fn blank(&mut self) -> Chain {
        self.spare.pop().unwrap_or_default()
    }

    pub(super) fn recycle(&mut self, chain: Chain) {
        self.spare.push(chain);
    }

    /// Adds a buffer.
    ///
    /// # Errors
    /// It is no receive buffer, or too short for a header (5.1.6.3.1).
    pub(super) fn push(&mut self, chain: Chain) -> Result<(), Malformed> {
        if !chain.readable.is_empty() {
            return Err(Malformed::Direction);
        }
        if chain.writable.len() < HEADER_LEN as u64 {
            return Err(Malformed::TooShort);
        }
        let before = self.vectors.len();
        self.vectors.extend_host(chain.writable.host_ranges(0));
        self.len += chain.writable.len();
        self.buffers.push_back((chain, self.vectors.len() - before));
        Ok(())
    }

    /// Reads a packet into the buffers, and returns its length. What does not fit is kept until
    /// [`Self::spill_into`] takes it or the next packet comes.
    ///
    /// # Errors
    /// Those of `readv(2)`.
    pub(super) fn read_from(&mut self, file: &File) -> io::Result<u64> {
        self.vectors.push_own(&mut self.spill);
        // SAFETY: `_memory` is mapped still, and holds all buffers of the chains in hand; the spill is ours.
        let read = unsafe { self.vectors.read_from(file) };
        self.vectors.pop_back();
        let len = read? as u64;
        self.spilled = usize::try_from(len.saturating_sub(self.len)).unwrap_or_default();
        Ok(len)
    }

    /// Adds a buffer and moves what was spilled into it, as far as it goes; true: all has found a place.
    ///
    /// # Errors
    /// As for [`Self::push`].
    pub(super) fn spill_into(&mut self, chain: Chain, memory: &QueueMemory) -> Result<bool, Malformed> {
        let len = usize::try_from(chain.writable.len()).map_or(self.spilled, |len| len.min(self.spilled));
        if let Some(data) = self.spill.get(..len) {
            chain.writable.write(memory, 0, data)?;
        }
        self.push(chain)?;
        self.spill.copy_within(len..self.spilled, 0);
        self.spilled -= len;
        Ok(self.spilled == 0)
    }

    /// The buffer in which a packet begins.
    pub(super) fn first(&self) -> Option<&Chain> {
        self.buffers.front().map(|(chain, _)| chain)
    }

    /// How many buffers a packet of `len` bytes has filled.
    pub(super) fn filled_by(&self, len: u64) -> u16 {
        let mut left = len;
        let filled = self.buffers.iter().take_while(|(chain, _)| {
            let filled = left > 0;
            left = left.saturating_sub(chain.writable.len());
            filled
        });
        filled.count() as u16
    }

    /// Takes the first buffer out.
    pub(super) fn take(&mut self) -> Option<Chain> {
        let (chain, vectors) = self.buffers.pop_front()?;
        self.vectors.pop_front(vectors);
        self.len -= chain.writable.len();
        Some(chain)
    }
}
