//! An overlay as its users see it: a [`Disk`].

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::map::{Geometry, write_states};
use super::{BASE, DATA, Overlay, lock};
use crate::backing::Backing;
use crate::base::{Base, Done};
use crate::cipher::Cipher;
use crate::store::Store;
use crate::{Access, Disk, Extent, Freeze, Place, check_range};

impl<F: Store> Overlay<F> {
    /// All that it consists of is known to the kernel.
    fn has_backings(&self) -> bool {
        let base = self.base.as_ref();
        self.data.backing().is_some() && base.is_none_or(|base| base.backing().is_some())
    }
}

impl<F: Store> Disk for Overlay<F> {
    fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    fn read_at(&self, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
        check_range(self.size(), offset, buf.len() as u64)?;
        while !buf.is_empty() {
            let (len, present) = self.run(&self.present, offset, buf.len() as u64);
            let (now, rest) = buf.split_at_mut(len as usize);
            if present {
                self.data.read_exact_at(now, offset)?;
            } else {
                self.read_base(now, offset)?;
            }
            (buf, offset) = (rest, offset + len);
        }
        Ok(())
    }

    fn write_at(&self, mut buf: &[u8], mut offset: u64) -> io::Result<()> {
        check_range(self.size(), offset, buf.len() as u64)?;
        while !buf.is_empty() {
            let (len, ready) = self.writable_run(offset, buf.len() as u64);
            let (now, rest) = buf.split_at(len as usize);
            if ready {
                self.data.write_all_at(now, offset)?;
            } else {
                self.fill(now, offset)?;
            }
            (buf, offset) = (rest, offset + len);
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let _flushing = self.begin_flush()?;
        // Taken before the sync: a chunk that is filled during it is not covered by it.
        let chunks = std::mem::take(&mut *lock(&self.unmapped));
        let flushed = self.sync(&self.data.file).and_then(|()| {
            if chunks.is_empty() {
                return Ok(());
            }
            write_states(&self.map, &chunks)?;
            self.sync(&self.map)
        });
        if flushed.is_err() {
            lock(&self.unmapped).extend(chunks);
        }
        flushed
    }

    fn can_discard(&self) -> bool {
        self.data.backing().is_some_and(Backing::punches_holes)
    }

    fn discard(&self, mut offset: u64, mut len: u64) -> io::Result<()> {
        check_range(self.size(), offset, len)?;
        while len > 0 {
            // An absent chunk takes no space.
            let (mut run, present) = self.run(&self.present, offset, len);
            if present {
                let (writable, ready) = self.writable_run(offset, run);
                run = writable;
                match ready {
                    true => self.data.punch_hole(offset, run)?,
                    false => self.punch(offset, run)?,
                }
            }
            (offset, len) = (offset + run, len - run);
        }
        Ok(())
    }

    fn write_zeroes(&self, mut offset: u64, mut len: u64, unmap: bool) -> io::Result<()> {
        check_range(self.size(), offset, len)?;
        while len > 0 {
            let (run, ready) = self.writable_run(offset, len);
            if ready {
                self.data.zero(offset, run, unmap)?;
            } else {
                self.fill_zeros(offset, run, unmap)?;
            }
            (offset, len) = (offset + run, len - run);
        }
        Ok(())
    }

    /// The data file's, which was made longer.
    fn refresh_size(&self) -> io::Result<u64> {
        self.grow(self.data.size()?)
    }

    /// The data file's alone: the base is shared by many disks, and so is its place in the page cache.
    fn set_direct(&self, on: bool) {
        if let Some(data) = self.data.backing() {
            data.set_direct(on);
        }
    }

    fn freeze(&self, freeze: Freeze) -> io::Result<()> {
        match &self.tracker {
            Some(tracker) => tracker.freeze(freeze, &self.present, self.geometry()),
            None => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn thaw(&self, name: &str) {
        if let Some(tracker) = &self.tracker {
            tracker.thaw(name);
        }
    }

    fn backings(&self) -> Vec<&Backing> {
        if !self.has_backings() {
            return Vec::new();
        }
        // In the order of `DATA` and `BASE`.
        let base = self.base.as_ref().and_then(Base::backing);
        self.data.backing().into_iter().chain(base).collect()
    }

    fn cipher(&self, backing: usize) -> Option<&Arc<Cipher>> {
        match backing {
            DATA => self.data.cipher.as_ref(),
            _ => self.base.as_ref()?.cipher(),
        }
    }

    /// What a read takes from the base, and what a write to a part of an absent chunk fills the rest with.
    fn awaits(&self, mut offset: u64, mut len: u64, access: Access) -> Option<u64> {
        let base = self.base.as_ref()?;
        let Geometry {
            size,
            base_size,
            chunk_size,
        } = self.geometry();
        if !base.is_coming() || check_range(size, offset, len).is_err() {
            return None;
        }
        let missing = |start: u64, end: u64| {
            let end = end.min(base_size);
            (start < end).then(|| base.missing(start, end - start)).flatten()
        };
        while len > 0 {
            // A chunk that is present needs no base, whether it can be written where it is or not.
            let (mut run, present) = self.run(&self.present, offset, len);
            let chunk = offset / chunk_size * chunk_size;
            let chunk_end = (chunk + chunk_size).min(size);
            if !present {
                run = run.min(chunk_end - offset);
            }
            let end = offset + run;
            let found = match access {
                _ if present => None,
                Access::Read => missing(offset, end),
                Access::Write => missing(chunk, offset).or_else(|| missing(end, chunk_end)),
            };
            if found.is_some() {
                return found;
            }
            (offset, len) = (end, len - run);
        }
        None
    }

    fn fetch(&self, chunk: u64, done: Done) {
        match &self.base {
            Some(base) => base.fetch(chunk, done),
            None => done(Ok(())),
        }
    }

    /// A present chunk stays where it is; an absent one may be filled while it is read from the base, which keeps
    /// what the reader came for. What has not come of the base has no place yet, and a write to a chunk that is not ready is the
    /// overlay's own.
    fn locate(&self, offset: u64, len: u64, access: Access) -> Extent {
        let Geometry { size, base_size, .. } = self.geometry();
        let itself = Extent { len, place: None };
        if check_range(size, offset, len).is_err() || !self.has_backings() {
            return itself;
        }
        let chunks = match access {
            Access::Read => &self.present,
            Access::Write => self.ready(),
        };
        let (run, in_place) = self.run(chunks, offset, len);
        let at = |backing, len| Extent {
            len,
            place: Some(Place { backing, offset }),
        };
        match access {
            _ if in_place => at(DATA, run),
            Access::Read if offset < base_size => {
                let base = self.base.as_ref();
                match base.map(|base| base.run(offset, run.min(base_size - offset))) {
                    Some((run, true)) => at(BASE, run),
                    Some((len, false)) => Extent { len, place: None },
                    None => itself,
                }
            }
            _ => Extent {
                len: run,
                place: None,
            },
        }
    }
}
