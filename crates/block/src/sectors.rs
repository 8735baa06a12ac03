//! A file whose sectors may lie encrypted.

use std::io;
use std::sync::Arc;

use crate::SECTOR;
use crate::backing::Backing;
use crate::cipher::Cipher;
use crate::scratch::{Scratch, round_down, round_up};
use crate::store::Store;

/// Bytes that are encrypted at once.
const PIECE: usize = 256 << 10;

/// A file that is read and written as it is, or through a [cipher](crate::cipher). Nobody but its owner writes parts of an
/// encrypted sector.
pub(crate) struct Sectors<F> {
    /// What lies in it is ciphertext where there is a cipher.
    pub(crate) file: F,
    pub(crate) cipher: Option<Arc<Cipher>>,
}

impl<F> Sectors<F> {
    pub(crate) fn plain(file: F) -> Self {
        Self { file, cipher: None }
    }
}

/// Whether a range begins and ends with sectors.
pub(crate) fn is_whole(offset: u64, len: u64) -> bool {
    offset.is_multiple_of(SECTOR) && len.is_multiple_of(SECTOR)
}

impl<F: Store> Sectors<F> {
    /// Reads the sectors of a range, and says where in them it begins.
    fn read_around(&self, cipher: &Cipher, offset: u64, len: usize) -> io::Result<(Scratch, usize)> {
        let start = round_down(offset);
        let mut around = Scratch::new((round_up(offset + len as u64) - start) as usize);
        self.file.read_exact_at(around.bytes(), start)?;
        cipher.decrypt(around.bytes(), start / SECTOR)?;
        Ok((around, (offset - start) as usize))
    }

    fn write_whole(&self, cipher: &Cipher, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut sealed = Scratch::new(buf.len().min(PIECE));
        for (piece, at) in buf.chunks(PIECE).zip((offset..).step_by(PIECE)) {
            let sealed = &mut sealed.bytes()[..piece.len()];
            sealed.copy_from_slice(piece);
            cipher.encrypt(sealed, at / SECTOR)?;
            self.file.write_all_at(sealed, at)?;
        }
        Ok(())
    }

    /// Writes zeros to the parts of sectors at the ends of a range; what is left are whole sectors.
    fn zero_ends(&self, offset: u64, len: u64) -> io::Result<(u64, u64)> {
        let end = offset + len;
        let (first, last) = (round_up(offset).min(end), round_down(end));
        self.write_all_at(&vec![0; (first - offset) as usize], offset)?;
        if last < first {
            return Ok((first, 0));
        }
        self.write_all_at(&vec![0; (end - last) as usize], last)?;
        Ok((first, last - first))
    }
}

impl<F: Store> Store for Sectors<F> {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        match &self.cipher {
            None => self.file.read_exact_at(buf, offset),
            Some(cipher) if is_whole(offset, buf.len() as u64) => {
                self.file.read_exact_at(buf, offset)?;
                cipher.decrypt(buf, offset / SECTOR)
            }
            Some(cipher) => {
                let (mut around, skip) = self.read_around(cipher, offset, buf.len())?;
                buf.copy_from_slice(&around.bytes()[skip..][..buf.len()]);
                Ok(())
            }
        }
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        match &self.cipher {
            None => self.file.write_all_at(buf, offset),
            Some(cipher) if is_whole(offset, buf.len() as u64) => self.write_whole(cipher, buf, offset),
            Some(cipher) => {
                // Whoever writes parts of sectors has the disk for himself: there is no guest.
                let (mut around, skip) = self.read_around(cipher, offset, buf.len())?;
                around.bytes()[skip..][..buf.len()].copy_from_slice(buf);
                self.write_whole(cipher, around.bytes(), round_down(offset))
            }
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        self.file.reserve(len)
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.file.try_lock()
    }

    /// Of an encrypted sector, all or nothing.
    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        if self.cipher.is_none() {
            return self.file.punch_hole(offset, len);
        }
        match self.zero_ends(offset, len)? {
            (_, 0) => Ok(()),
            (offset, len) => self.file.punch_hole(offset, len),
        }
    }

    fn zero(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        if self.cipher.is_none() {
            return self.file.zero(offset, len, unmap);
        }
        match self.zero_ends(offset, len)? {
            (_, 0) => Ok(()),
            (offset, len) => self.file.zero(offset, len, unmap),
        }
    }

    fn backing(&self) -> Option<&Backing> {
        self.file.backing()
    }
}
