//! Memory between a guest's buffers and the encrypted sectors of a disk.

use std::io;
use std::sync::Arc;

use super::Segment;
use super::buffers::{gather, scatter};
use crate::scratch::Scratch;
use crate::{Cipher, Place, SECTOR};

/// Bytes of the smallest memory that is kept for later.
const SMALLEST: usize = 4 << 10;

/// Bytes of a transfer that lie together in a backing: whole sectors of it, if that is encrypted. On their way to the disk they
/// are encrypted here, and on their way from it decrypted.
pub(super) struct Bounce {
    memory: Scratch,
    pub(super) part: Part,
}

/// What a [`Bounce`] is for.
#[derive(Clone)]
pub(super) struct Part {
    pub(super) place: Place,
    pub(super) len: usize,
    /// Where it is in the request's buffers.
    pub(super) skip: u64,
    /// Absent: it lies plain.
    pub(super) cipher: Option<Arc<Cipher>>,
}

impl Bounce {
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory.bytes()[..self.part.len]
    }

    /// What the kernel reads or writes.
    pub(super) fn segment(&mut self) -> Segment {
        let bytes = self.bytes();
        Segment::new(bytes.as_mut_ptr(), bytes.len())
    }

    /// Takes a guest's bytes, and encrypts them.
    ///
    /// # Safety
    /// The buffers are mapped, and no Rust reference points into them.
    pub(super) unsafe fn take(&mut self, buffers: &[Segment]) -> io::Result<()> {
        // SAFETY: by contract.
        unsafe { gather(buffers, self.part.skip, self.bytes()) };
        self.pass(Cipher::encrypt)
    }

    /// Decrypts what came from the disk, and gives it to a guest.
    ///
    /// # Safety
    /// As [`Self::take`], and they are writable.
    pub(super) unsafe fn give(&mut self, buffers: &[Segment]) -> io::Result<()> {
        self.pass(Cipher::decrypt)?;
        let skip = self.part.skip;
        // SAFETY: by contract.
        unsafe { scatter(self.bytes(), buffers, skip) };
        Ok(())
    }

    fn pass(&mut self, pass: impl Fn(&Cipher, &mut [u8], u64) -> io::Result<()>) -> io::Result<()> {
        let first = self.part.place.offset / SECTOR;
        match self.part.cipher.clone() {
            Some(cipher) => pass(&cipher, self.bytes(), first),
            None => Ok(()),
        }
    }
}

/// Memory of bounces that are over: new memory costs as much as encrypting what it holds.
#[derive(Default)]
pub(super) struct Spare {
    memories: Vec<Scratch>,
    bytes: usize,
}

impl Spare {
    /// Bytes that are kept.
    const MOST: usize = 2 << 20;

    pub(super) fn bounce(&mut self, part: Part) -> Bounce {
        let len = part.len.next_power_of_two().max(SMALLEST);
        let known = self.memories.iter().rposition(|memory| memory.len() == len);
        let memory = match known {
            Some(known) => {
                self.bytes -= len;
                self.memories.swap_remove(known)
            }
            None => Scratch::new(len),
        };
        Bounce { memory, part }
    }

    pub(super) fn keep(&mut self, bounce: Bounce) {
        let len = bounce.memory.len();
        if self.bytes + len <= Self::MOST {
            self.bytes += len;
            self.memories.push(bounce.memory);
        }
    }
}
