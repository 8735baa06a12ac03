//! What has to happen before a chunk of a tracked overlay is written: its units are marked as dirty, and where the disk
//! is frozen its contents are copied.
//!
//! Writers ask one bit per chunk, as they do where nothing is tracked: whether it is *ready*. A ready chunk is present,
//! its units are dirty, and it needs no copy; it is written in place. All others go through the overlay's fill locks.

use std::io;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::dirty::{self, MARKS_AT, UNIT, each_dirty};
use super::frozen::Side;
use super::map::{Geometry, Presence};
use crate::Freeze;
use crate::store::Store;

pub(super) struct Tracker {
    pub(super) ready: Presence,
    state: RwLock<State>,
}

struct State {
    dirty: Box<dyn Store>,
    /// With the point in time's name.
    side: Option<(String, Side)>,
}

impl Tracker {
    pub(super) fn new(
        dirty: Box<dyn Store>,
        side: Option<(String, Side)>,
        present: &Presence,
        geometry: &Geometry,
    ) -> io::Result<Tracker> {
        let ready = Presence::empty(geometry);
        // Of a frozen disk each chunk is looked at when it is written.
        if side.is_none() {
            // Units of one chunk, where chunks are larger, are all dirty or the chunk is not ready.
            let needed = (geometry.chunk_size / UNIT).max(1);
            let mut run = (0, 0);
            each_dirty(&*dirty, geometry.size, |unit| {
                run = if unit == run.1 {
                    (run.0, unit + 1)
                } else {
                    (unit, unit + 1)
                };
                if run.1 - run.0 >= needed && (unit + 1).is_multiple_of(needed) {
                    open_unit(&ready, unit, present, geometry);
                }
            })?;
        }
        Ok(Tracker {
            ready,
            state: RwLock::new(State { dirty, side }),
        })
    }

    /// Under the chunk's lock, before it is written.
    pub(super) fn prepare(&self, chunk: u64, geometry: &Geometry, data: &impl Store) -> io::Result<()> {
        let state = self.read();
        let start = chunk * geometry.chunk_size;
        let len = geometry.chunk_size.min(geometry.size - start);
        dirty::mark(&*state.dirty, start, len)?;
        match &state.side {
            Some((_, side)) => side.keep(chunk, data),
            None => Ok(()),
        }
    }

    /// Under the chunk's lock, after it was written.
    pub(super) fn release(&self, chunk: u64, present: &Presence, geometry: &Geometry) {
        self.ready.insert(chunk);
        // With it the rest of its unit became dirty.
        if self.read().side.is_none() && geometry.chunk_size < UNIT {
            open_unit(&self.ready, chunk * geometry.chunk_size / UNIT, present, geometry);
        }
    }

    /// Makes room for a larger disk. What lies between the old end and the end of its unit was written, in a way.
    pub(super) fn grow(&self, before: u64, geometry: &Geometry) -> io::Result<()> {
        self.ready.grow(geometry);
        let state = self.read();
        state.dirty.reserve(MARKS_AT + dirty::units(geometry.size))?;
        match before % UNIT {
            0 => Ok(()),
            _ => dirty::mark(&*state.dirty, before, 1),
        }
    }

    /// Nobody writes meanwhile.
    pub(super) fn freeze(&self, freeze: Freeze, present: &Presence, geometry: Geometry) -> io::Result<()> {
        let mut state = self.write();
        match &state.side {
            Some((name, _)) if *name == freeze.name => return Ok(()),
            Some((name, _)) => {
                return Err(io::Error::other(format!("it is frozen as {name} already")));
            }
            None => {}
        }
        let side = Side::lay(freeze.frozen, geometry, present)?;
        *state = State {
            dirty: freeze.dirty,
            side: Some((freeze.name, side)),
        };
        self.ready.clear();
        Ok(())
    }

    pub(super) fn thaw(&self, name: &str) {
        let mut state = self.write();
        if state.side.as_ref().is_some_and(|(known, _)| known == name) {
            state.side = None;
        }
    }

    // No code panics while it holds this lock.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the chunks of a dirty unit ready that are present.
fn open_unit(ready: &Presence, unit: u64, present: &Presence, geometry: &Geometry) {
    let end = ((unit + 1) * UNIT).min(geometry.size);
    for chunk in unit * UNIT / geometry.chunk_size..end.div_ceil(geometry.chunk_size) {
        if present.contains(chunk) {
            ready.insert(chunk);
        }
    }
}
