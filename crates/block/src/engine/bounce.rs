//! Memory between a guest's buffers and the encrypted sectors of a disk.

use std::io;
use std::sync::Arc;

use super::Segment;
use super::buffers::{gather, scatter};
use crate::scratch::Scratch;
use crate::{Cipher, Place, SECTOR};

/// The bytes of one transfer. On their way to the disk they are encrypted here, and on their way from it decrypted.
pub(super) struct Bounce {
    memory: Scratch,
    parts: Vec<Part>,
}

/// Bytes of a transfer that lie together in a backing. Whole sectors of it, if that is encrypted.
#[derive(Clone)]
pub(super) struct Part {
    pub(super) place: Place,
    pub(super) len: usize,
    pub(super) cipher: Option<Arc<Cipher>>,
}

impl Bounce {
    pub(super) fn new(parts: Vec<Part>) -> Bounce {
        Bounce {
            memory: Scratch::new(parts.iter().map(|part| part.len).sum()),
            parts,
        }
    }

    pub(super) fn bytes(&mut self) -> &mut [u8] {
        self.memory.bytes()
    }

    /// Of each part, what the kernel reads or writes.
    pub(super) fn shares(&mut self) -> Vec<Vec<Segment>> {
        let mut rest = self.memory.bytes();
        let mut shares = Vec::new();
        for part in &self.parts {
            let (now, later) = std::mem::take(&mut rest).split_at_mut(part.len);
            shares.push(vec![Segment::new(now.as_mut_ptr(), now.len())]);
            rest = later;
        }
        shares
    }

    /// Takes the bytes that a guest has at `skip` of its buffers, encrypted.
    ///
    /// # Safety
    /// The buffers are mapped, and no Rust reference points into them.
    pub(super) unsafe fn take(&mut self, buffers: &[Segment], skip: u64) -> io::Result<()> {
        // SAFETY: by contract.
        unsafe { gather(buffers, skip, self.bytes()) };
        self.each_encrypted(Cipher::encrypt)
    }

    /// Gives what came from the disk to a guest, decrypted, at `skip` of its buffers.
    ///
    /// # Safety
    /// As [`Self::take`], and they are writable.
    pub(super) unsafe fn give(&mut self, buffers: &[Segment], skip: u64) -> io::Result<()> {
        self.each_encrypted(Cipher::decrypt)?;
        // SAFETY: by contract.
        unsafe { scatter(self.bytes(), buffers, skip) };
        Ok(())
    }

    fn each_encrypted(
        &mut self,
        pass: impl Fn(&Cipher, &mut [u8], u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut rest = self.memory.bytes();
        for part in &self.parts {
            let (now, later) = std::mem::take(&mut rest).split_at_mut(part.len);
            if let Some(cipher) = &part.cipher {
                pass(cipher, now, part.place.offset / SECTOR)?;
            }
            rest = later;
        }
        Ok(())
    }
}
