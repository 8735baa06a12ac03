//! Descriptor chains, parsed once into a checked type. Virtio 1.2, sections 2.6.4 and 2.7.5.
//!
//! `virtio-queue` walks the chain, also through an indirect table. It ends a broken chain like a complete one: one that
//! loops, leaves its table, has a table within a table or is longer than 4 GiB. Here the two are told apart, and everything
//! that request parsers rely on is checked: the chain has a bounded number of descriptors, its buffers lie in guest
//! memory, and its readable buffers come before its writable ones. The host address of each buffer is looked up here,
//! once.

use std::ptr::NonNull;

use virtio_queue::DescriptorChain;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress};

use super::queue::QueueMemory;
use crate::memory::VolatileSlice;

/// How a chain, or the request in it, breaks the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("the descriptor chain loops, leaves its table or has a bad indirect table")]
    Unterminated,
    #[error("the descriptor chain is longer than {0} descriptors")]
    TooLong(usize),
    #[error("a device-readable buffer follows a device-writable one")]
    Order,
    #[error("a buffer of {len} bytes at {address:#x} is not in guest memory")]
    OutsideMemory { address: u64, len: u32 },
    #[error("the request is longer than {0} bytes")]
    TooLarge(usize),
    #[error("the buffers are too short for the request")]
    TooShort,
    #[error("the request has a buffer in the wrong direction")]
    Direction,
}

/// A buffer inside guest memory.
#[derive(Debug, Clone, Copy)]
struct Segment {
    address: GuestAddress,
    len: u32,
    host: Host,
}

/// Where a buffer is in host memory, as long as the guest's memory is mapped: an address for system calls, which is not
/// followed in here.
#[derive(Debug, Clone, Copy)]
struct Host(NonNull<u8>);

// SAFETY: the address means the same in every thread.
unsafe impl Send for Host {}

/// The buffers of one direction, seen as one run of bytes: how the driver framed them means nothing (2.7.4).
#[derive(Debug, Default)]
pub struct Buffers {
    segments: Vec<Segment>,
    len: u64,
}

impl Buffers {
    /// Bytes of all buffers together.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The buffers, for requests that are about memory and not about what is in it.
    pub fn ranges(&self) -> impl Iterator<Item = (GuestAddress, u64)> {
        self.segments
            .iter()
            .map(|segment| (segment.address, segment.len.into()))
    }

    /// Copies `data.len()` bytes from `offset` out of guest memory.
    ///
    /// # Errors
    /// [`Malformed::TooShort`] if the buffers end before.
    pub fn read(&self, memory: &QueueMemory, offset: u64, data: &mut [u8]) -> Result<(), Malformed> {
        let mut done = 0;
        for piece in self.pieces(offset, data.len())? {
            let end = done + piece.len as usize;
            let part = data.get_mut(done..end).ok_or(Malformed::TooShort)?;
            memory
                .read_slice(part, piece.address)
                .map_err(|_| piece.outside())?;
            done = end;
        }
        Ok(())
    }

    /// Copies `data` into guest memory at `offset`.
    ///
    /// # Errors
    /// [`Malformed::TooShort`] if the buffers end before.
    pub fn write(&self, memory: &QueueMemory, offset: u64, data: &[u8]) -> Result<(), Malformed> {
        let mut done = 0;
        for piece in self.pieces(offset, data.len())? {
            let end = done + piece.len as usize;
            let part = data.get(done..end).ok_or(Malformed::TooShort)?;
            memory
                .write_slice(part, piece.address)
                .map_err(|_| piece.outside())?;
            done = end;
        }
        Ok(())
    }

    /// The bytes from `offset` to the end as slices of host memory, for system calls that gather or scatter.
    pub fn slices<'m>(
        &'m self,
        memory: &'m QueueMemory,
        offset: u64,
    ) -> impl Iterator<Item = VolatileSlice<'m>> {
        self.from(offset)
            .filter_map(|piece| memory.slice(piece.address, piece.len as usize).ok())
    }

    /// Where the bytes from `offset` to the end are in host memory, as address and length: like [`Self::slices`], for
    /// callers that keep the guest's memory mapped.
    pub(super) fn host_ranges(&self, offset: u64) -> impl Iterator<Item = (NonNull<u8>, usize)> {
        self.from(offset).map(|piece| (piece.host.0, piece.len as usize))
    }

    /// Marks the first `len` bytes as written, for system calls that wrote to [`Self::slices`].
    pub(super) fn mark_written(&self, memory: &QueueMemory, len: u32) {
        let mut left = len as usize;
        for segment in &self.segments {
            if left == 0 {
                break;
            }
            let part = left.min(segment.len as usize);
            memory.mark_written(segment.address, part);
            left -= part;
        }
    }

    /// The parts of the segments that make up `len` bytes from `offset`.
    fn pieces(&self, offset: u64, len: usize) -> Result<impl Iterator<Item = Segment>, Malformed> {
        let end = offset.checked_add(len as u64).ok_or(Malformed::TooShort)?;
        if end > self.len {
            return Err(Malformed::TooShort);
        }
        let mut left = len;
        Ok(self.from(offset).map_while(move |piece| {
            let len = left.min(piece.len as usize);
            left -= len;
            (len > 0).then_some(Segment {
                len: len as u32,
                ..piece
            })
        }))
    }

    /// The parts of the segments from `offset` on.
    fn from(&self, offset: u64) -> impl Iterator<Item = Segment> {
        let mut skip = offset;
        self.segments.iter().filter_map(move |segment| {
            let skipped = skip.min(u64::from(segment.len));
            skip -= skipped;
            let len = segment.len - skipped as u32;
            (len > 0).then(|| Segment {
                // It cannot overflow: the whole segment lies in guest memory.
                address: GuestAddress(segment.address.0 + skipped),
                len,
                // SAFETY: no more is skipped than the segment is long, all of which is one mapping.
                host: Host(unsafe { segment.host.0.add(skipped as usize) }),
            })
        })
    }

    fn push(&mut self, segment: Segment) {
        self.len += u64::from(segment.len);
        self.segments.push(segment);
    }

    fn clear(&mut self) {
        self.segments.clear();
        self.len = 0;
    }
}

impl Segment {
    fn at(address: GuestAddress, len: u32, memory: &QueueMemory) -> Result<Self, Malformed> {
        // An empty buffer may be anywhere.
        let host = match len {
            0 => Some(NonNull::dangling()),
            _ => memory
                .slice(address, len as usize)
                .ok()
                .and_then(|slice| NonNull::new(slice.ptr_guard_mut().as_ptr())),
        };
        let outside = Malformed::OutsideMemory {
            address: address.0,
            len,
        };
        Ok(Self {
            address,
            len,
            host: Host(host.ok_or(outside)?),
        })
    }

    fn outside(&self) -> Malformed {
        Malformed::OutsideMemory {
            address: self.address.0,
            len: self.len,
        }
    }
}

/// A checked descriptor chain. Workers keep one and parse each chain into it, so that nothing is allocated
/// per request.
#[derive(Debug, Default)]
pub struct Chain {
    pub(super) head: u16,
    /// What the driver wrote for the device.
    pub readable: Buffers,
    /// Where the device writes.
    pub writable: Buffers,
}

impl Chain {
    pub(super) fn parse(
        &mut self,
        descriptors: DescriptorChain<&QueueMemory>,
        memory: &QueueMemory,
        max_descriptors: usize,
    ) -> Result<(), Malformed> {
        self.head = descriptors.head_index();
        self.readable.clear();
        self.writable.clear();
        for (count, descriptor) in descriptors.enumerate() {
            if count == max_descriptors {
                return Err(Malformed::TooLong(max_descriptors));
            }
            self.push(&descriptor, memory)?;
            if !descriptor.has_next() {
                return Ok(());
            }
        }
        Err(Malformed::Unterminated)
    }

    fn push(&mut self, descriptor: &Descriptor, memory: &QueueMemory) -> Result<(), Malformed> {
        let segment = Segment::at(descriptor.addr(), descriptor.len(), memory)?;
        if descriptor.is_write_only() {
            self.writable.push(segment);
        } else if self.writable.segments.is_empty() {
            self.readable.push(segment);
        } else {
            return Err(Malformed::Order);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
