//! Files that lose power: an unsynced sector comes back as any of the contents it has had since the last sync.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use crate::Store;

const SECTOR: usize = 512;

/// How many more calls the machine lives through. Shared by its files.
#[derive(Clone, Default)]
pub(crate) struct Fuse(Arc<AtomicU32>);

impl Fuse {
    pub(crate) fn never(&self) {
        self.0.store(u32::MAX, Ordering::Relaxed);
    }

    pub(crate) fn after(&self, calls: u32) {
        self.0.store(calls, Ordering::Relaxed);
    }

    fn burn(&self) -> io::Result<()> {
        match self.0.load(Ordering::Relaxed) {
            u32::MAX => Ok(()),
            0 => Err(io::Error::other("the power is out")),
            left => {
                self.0.store(left - 1, Ordering::Relaxed);
                Ok(())
            }
        }
    }
}

#[derive(Default)]
struct Pages {
    /// What the page cache holds.
    now: Vec<u8>,
    /// Per sector that was written since the last sync: what it held, oldest first, beginning with the synced content.
    history: BTreeMap<usize, Vec<[u8; SECTOR]>>,
    /// Bytes of the file at the last sync, if it became longer since.
    synced_len: Option<usize>,
}

/// A file of whole sectors.
#[derive(Clone)]
pub(crate) struct PowerFile {
    pages: Arc<Mutex<Pages>>,
    fuse: Fuse,
}

impl PowerFile {
    pub(crate) fn new(content: Vec<u8>, fuse: &Fuse) -> PowerFile {
        assert_eq!(content.len() % SECTOR, 0);
        let pages = Arc::new(Mutex::new(Pages {
            now: content,
            history: BTreeMap::new(),
            synced_len: None,
        }));
        PowerFile {
            pages,
            fuse: fuse.clone(),
        }
    }

    /// The power goes and comes back. `pick` chooses below its argument which content each unsynced sector has.
    pub(crate) fn cut(&self, mut pick: impl FnMut(usize) -> usize) {
        let mut pages = self.pages.lock().unwrap();
        for (sector, contents) in std::mem::take(&mut pages.history) {
            let content = contents[pick(contents.len())];
            pages.now[sector * SECTOR..][..SECTOR].copy_from_slice(&content);
        }
        if let Some(len) = pages.synced_len.take()
            && pick(2) == 0
        {
            pages.now.truncate(len);
        }
    }
}

impl Store for PowerFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.pages.lock().unwrap().now.len() as u64)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.fuse.burn()?;
        buf.copy_from_slice(&self.pages.lock().unwrap().now[offset as usize..][..buf.len()]);
        Ok(())
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.fuse.burn()?;
        let mut pages = self.pages.lock().unwrap();
        let (start, end) = (offset as usize, offset as usize + buf.len());
        for sector in start / SECTOR..end.div_ceil(SECTOR) {
            let at = sector * SECTOR;
            let old: [u8; SECTOR] = pages.now[at..at + SECTOR].try_into().unwrap();
            pages.history.entry(sector).or_insert_with(|| vec![old]);
            let (from, to) = (start.max(at), end.min(at + SECTOR));
            pages.now[from..to].copy_from_slice(&buf[from - start..to - start]);
            let new: [u8; SECTOR] = pages.now[at..at + SECTOR].try_into().unwrap();
            pages.history.get_mut(&sector).unwrap().push(new);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.fuse.burn()?;
        let mut pages = self.pages.lock().unwrap();
        pages.history.clear();
        pages.synced_len = None;
        Ok(())
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        self.fuse.burn()?;
        let mut pages = self.pages.lock().unwrap();
        let before = pages.now.len();
        if len as usize > before {
            pages.now.resize(len as usize, 0);
            pages.synced_len.get_or_insert(before);
        }
        Ok(())
    }

    fn try_lock(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        self.write_all_at(&vec![0; len as usize], offset)
    }

    fn zero(&self, offset: u64, len: u64, _unmap: bool) -> io::Result<()> {
        self.write_all_at(&vec![0; len as usize], offset)
    }
}
