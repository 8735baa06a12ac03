//! A region as `ext4-view` should see it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::rc::Rc;

use ext4_view::Ext4Read;

use super::super::FsError;
use super::journal::{self, Copied};
use super::superblock::{self, Superblock};
use crate::meter::SharedDisk;
use crate::partitions::Region;

/// Reads of a region, by bytes.
#[derive(Clone)]
pub(super) struct RawView {
    disk: SharedDisk,
    start: u64,
    len: u64,
}

impl RawView {
    pub(super) fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let len = buf.len() as u64;
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut disk = self.disk.borrow_mut();
        disk.seek(SeekFrom::Start(self.start + offset))?;
        disk.read_exact(buf)
    }
}

pub(super) struct View {
    raw: RawView,
    superblock: Superblock,
    /// What is read in the superblock's place.
    simplified: Vec<u8>,
    /// Blocks whose newest content is in the journal.
    replayed: BTreeMap<u64, Copied>,
    /// While it is set, everything behind the superblock that is read is group descriptors, which `ext4-view` expects in
    /// one piece.
    loading: Rc<Cell<bool>>,
}

impl View {
    pub(super) fn new(disk: &SharedDisk, region: &Region) -> Result<View, FsError> {
        let raw = RawView {
            disk: Rc::clone(disk),
            start: region.start,
            len: region.len,
        };
        let mut bytes = vec![0; superblock::LEN];
        match raw.read_at(superblock::START, &mut bytes) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(FsError::Unknown),
            read => read?,
        }
        let superblock = Superblock::parse(bytes.clone(), region.len)?;
        let mut view = View {
            simplified: bytes,
            replayed: BTreeMap::new(),
            loading: Rc::new(Cell::new(false)),
            raw,
            superblock,
        };
        if view.superblock.needs_recovery() {
            view.replayed = journal::replay(&view.raw, &view.superblock)?;
            // The journal may hold a newer superblock.
            let mut bytes = vec![0; superblock::LEN];
            view.read_replayed(superblock::START, &mut bytes)?;
            view.superblock = Superblock::parse(bytes, region.len)?;
        }
        view.simplified = view.superblock.simplified();
        view.loading.set(view.superblock.has_meta_bg());
        Ok(view)
    }

    pub(super) fn loading(&self) -> Rc<Cell<bool>> {
        Rc::clone(&self.loading)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let behind_superblock = superblock::START + superblock::LEN as u64;
        let offset = if self.loading.get() && offset >= behind_superblock {
            let block_size = self.superblock.block_size;
            // The first block that `ext4-view` takes for descriptors.
            let first = if block_size == 1024 { 2 } else { 1 };
            let (block, within) = (offset / block_size, offset % block_size);
            self.superblock.descriptor_block(block.saturating_sub(first)) * block_size + within
        } else {
            offset
        };
        self.read_replayed(offset, buf)?;
        let end = offset + buf.len() as u64;
        let (from, to) = (offset.max(superblock::START), end.min(behind_superblock));
        if from < to {
            let source = (from - superblock::START) as usize..(to - superblock::START) as usize;
            let target = (from - offset) as usize..(to - offset) as usize;
            buf[target].copy_from_slice(&self.simplified[source]);
        }
        Ok(())
    }

    fn read_replayed(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if self.replayed.is_empty() {
            return self.raw.read_at(offset, buf);
        }
        let block_size = self.superblock.block_size;
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let (block, within) = (at / block_size, at % block_size);
            let len = (buf.len() - done).min((block_size - within) as usize);
            let piece = &mut buf[done..done + len];
            match self.replayed.get(&block) {
                None => self.raw.read_at(at, piece)?,
                Some(copied) => {
                    self.raw.read_at(copied.block * block_size + within, piece)?;
                    if copied.escaped {
                        journal::unescape(within, piece);
                    }
                }
            }
            done += len;
        }
        Ok(())
    }
}

impl Ext4Read for View {
    fn read(
        &mut self,
        start_byte: u64,
        dst: &mut [u8],
    ) -> Result<(), Box<dyn Error + Send + Sync + 'static>> {
        Ok(self.read_at(start_byte, dst)?)
    }
}
