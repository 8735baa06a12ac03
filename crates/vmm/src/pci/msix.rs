//! MSI-X: the vector table, the pending bits, and the way from a vector to the guest.
//! PCI Local Bus 3.0, section 6.8.2.
//!
//! A vector becomes a KVM interrupt route and an irqfd when the guest first unmasks it with MSI-X enabled:
//! unused vectors cost nothing. While a vector is masked, a signal sets its pending bit; unmasking delivers
//! it. With MSI-X disabled signals are dropped, for there is no INTx here.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::Interrupt;
use crate::snapshot::StateError;

/// Capability id for [`super::config::ConfigSpace::add_capability`].
pub const CAPABILITY_ID: u8 = 0x11;
/// Where the control word is, counted from the capability's offset.
pub const CONTROL_OFFSET: u16 = 2;
/// The bits of the control word that a guest may write: enable and function mask.
pub const CONTROL_WRITABLE: u16 = CONTROL_ENABLE | CONTROL_FUNCTION_MASK;

const CONTROL_ENABLE: u16 = 1 << 15;
const CONTROL_FUNCTION_MASK: u16 = 1 << 14;
/// Bytes of a table entry: address low, address high, data, vector control.
pub const ENTRY_SIZE: u64 = 16;
const ENTRY_MASKED: u32 = 1;

/// What a vector writes, and where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MsiMessage {
    pub address: u64,
    pub data: u32,
}

/// The interrupt controller's side: turns messages into interrupts.
pub trait MsiRouter: Send + Sync {
    /// Makes a line that sends `message` whenever it is signalled. Dropping the line frees it.
    ///
    /// # Errors
    /// The controller has no line left, or refused.
    fn connect(&self, message: MsiMessage) -> io::Result<Box<dyn MsiLine>>;
}

/// An interrupt line made by [`MsiRouter::connect`].
pub trait MsiLine: Send + Sync {
    /// Sends another message from now on.
    ///
    /// # Errors
    /// The controller refused the message.
    fn set_message(&self, message: MsiMessage) -> io::Result<()>;
    /// Sends the message.
    ///
    /// # Errors
    /// The line's descriptor failed.
    fn signal(&self) -> io::Result<()>;
}

/// The MSI-X side of one function. vCPU threads use it under `&self`; each vector has a lock of its own.
pub struct Msix {
    router: Arc<dyn MsiRouter>,
    vectors: Vec<Arc<Vector>>,
    control: Mutex<u16>,
}

impl Msix {
    /// `vectors` is 1 to 2048.
    #[must_use]
    pub fn new(router: Arc<dyn MsiRouter>, vectors: u16) -> Self {
        Self {
            router,
            vectors: (0..vectors.clamp(1, 2048)).map(|_| Arc::default()).collect(),
            control: Mutex::new(0),
        }
    }

    /// Bytes of the table.
    #[must_use]
    pub fn table_size(&self) -> u64 {
        ENTRY_SIZE * self.vectors.len() as u64
    }

    /// Bytes of the pending bit array, whole quadwords.
    #[must_use]
    pub fn pba_size(&self) -> u64 {
        8 * (self.vectors.len() as u64).div_ceil(64)
    }

    /// The capability's body behind id and next pointer. Offsets are multiples of 8 within their BARs.
    ///
    /// After `add_capability` call `set_writable(offset + CONTROL_OFFSET, &CONTROL_WRITABLE.to_le_bytes())`,
    /// and after each guest write that touches these two bytes pass them to [`Self::control_write`].
    #[must_use]
    pub fn capability(&self, table_bar: u8, table_offset: u32, pba_bar: u8, pba_offset: u32) -> Vec<u8> {
        let last = self.vectors.len() as u16 - 1;
        let mut body = last.to_le_bytes().to_vec();
        body.extend((table_offset | u32::from(table_bar)).to_le_bytes());
        body.extend((pba_offset | u32::from(pba_bar)).to_le_bytes());
        body
    }

    /// The guest wrote the control word.
    pub fn control_write(&self, value: u16) {
        let mut control = lock(&self.control);
        let value = value & CONTROL_WRITABLE;
        if value != *control {
            *control = value;
            for vector in &self.vectors {
                self.change(vector, |state| {
                    state.enabled = value & CONTROL_ENABLE != 0;
                    state.function_masked = value & CONTROL_FUNCTION_MASK != 0;
                });
            }
        }
    }

    /// Reads the table: 4 or 8 bytes, aligned; anything else reads as zeroes.
    pub fn table_read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let Some((vector, at)) = self.locate(offset, data.len()) else {
            return;
        };
        let entry = lock(&vector.state).entry();
        data.copy_from_slice(&entry[at..at + data.len()]);
    }

    /// Writes the table: 4 or 8 bytes, aligned; anything else is ignored.
    pub fn table_write(&self, offset: u64, data: &[u8]) {
        if let Some((vector, at)) = self.locate(offset, data.len()) {
            self.change(vector, |state| {
                let mut entry = state.entry();
                entry[at..at + data.len()].copy_from_slice(data);
                state.set_entry(&entry);
            });
        }
    }

    /// Reads pending bits; it has no write, for guests may not write them.
    pub fn pba_read(&self, offset: u64, data: &mut [u8]) {
        for (at, byte) in (offset..).zip(data) {
            let first = usize::try_from(at).unwrap_or(usize::MAX).saturating_mul(8);
            let vectors = self.vectors.iter().skip(first).take(8);
            *byte = vectors.enumerate().fold(0, |bits, (bit, vector)| {
                bits | u8::from(lock(&vector.state).pending) << bit
            });
        }
    }

    /// The interrupt of table entry `n`; it stays valid over resets.
    #[must_use]
    pub fn vector(&self, n: u16) -> Option<Arc<dyn Interrupt>> {
        let vector = self.vectors.get(usize::from(n))?;
        Some(Arc::clone(vector) as Arc<dyn Interrupt>)
    }

    /// Back to the state after power-on: disabled, all vectors masked, nothing pending, lines freed.
    pub fn reset(&self) {
        *lock(&self.control) = 0;
        for vector in &self.vectors {
            *lock(&vector.state) = VectorState::default();
        }
    }

    /// The table and the pending bits; the control word is in configuration space.
    #[must_use]
    pub fn save(&self) -> Vec<SavedVector> {
        let vectors = self.vectors.iter();
        vectors
            .map(|vector| {
                let state = lock(&vector.state);
                SavedVector {
                    entry: state.entry(),
                    pending: state.pending,
                }
            })
            .collect()
    }

    /// Takes over table and pending bits, and connects the vectors that are in use under `control`.
    ///
    /// # Errors
    /// The function has another number of vectors.
    pub fn restore(&self, saved: &[SavedVector], control: u16) -> Result<(), StateError> {
        if saved.len() != self.vectors.len() {
            return Err(StateError::Unfit(format!(
                "a PCI function has {} MSI-X vectors in it and {} here",
                saved.len(),
                self.vectors.len()
            )));
        }
        self.reset();
        for (vector, saved) in self.vectors.iter().zip(saved) {
            let mut state = lock(&vector.state);
            state.set_entry(&saved.entry);
            state.pending = saved.pending;
            // As `control_write` will leave it, or the pending bit would be lost on the way.
            state.enabled = control & CONTROL_ENABLE != 0;
        }
        self.control_write(control);
        Ok(())
    }

    fn locate(&self, offset: u64, len: usize) -> Option<(&Arc<Vector>, usize)> {
        let aligned = matches!(len, 4 | 8) && offset.is_multiple_of(len as u64);
        let index = usize::try_from(offset / ENTRY_SIZE).ok()?;
        let vector = self.vectors.get(index).filter(|_| aligned)?;
        Some((vector, (offset % ENTRY_SIZE) as usize))
    }

    /// Changes a vector and brings its line in step: connected, told the message, signalled if pending.
    fn change(&self, vector: &Vector, change: impl FnOnce(&mut VectorState)) {
        let mut state = lock(&vector.state);
        change(&mut state);
        if !state.enabled {
            state.pending = false;
        }
        if let Err(error) = state.settle(self.router.as_ref()) {
            // The guest named a message that KVM refuses, or the host is out of lines: the vector stays
            // silent, as a real one with a wild address would.
            tracing::warn!(%error, message = ?state.message, "MSI-X vector not connected");
        }
    }
}

/// A table entry and its pending bit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedVector {
    entry: [u8; ENTRY_SIZE as usize],
    pending: bool,
}

#[derive(Default)]
struct Vector {
    state: Mutex<VectorState>,
}

struct VectorState {
    message: MsiMessage,
    /// The entry's vector control word; only its mask bit means anything.
    vector_control: u32,
    enabled: bool,
    function_masked: bool,
    pending: bool,
    /// The line, and the message it was last told.
    line: Option<(Box<dyn MsiLine>, MsiMessage)>,
}

impl Default for VectorState {
    fn default() -> Self {
        Self {
            message: MsiMessage::default(),
            vector_control: ENTRY_MASKED,
            enabled: false,
            function_masked: false,
            pending: false,
            line: None,
        }
    }
}

impl VectorState {
    fn masked(&self) -> bool {
        self.function_masked || self.vector_control & ENTRY_MASKED != 0
    }

    fn entry(&self) -> [u8; ENTRY_SIZE as usize] {
        let mut entry = [0; ENTRY_SIZE as usize];
        entry[..8].copy_from_slice(&self.message.address.to_le_bytes());
        entry[8..12].copy_from_slice(&self.message.data.to_le_bytes());
        entry[12..].copy_from_slice(&self.vector_control.to_le_bytes());
        entry
    }

    fn set_entry(&mut self, entry: &[u8; ENTRY_SIZE as usize]) {
        let word = |at: usize| u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]);
        self.message.address = u64::from(word(4)) << 32 | u64::from(word(0));
        self.message.data = word(8);
        self.vector_control = word(12) & ENTRY_MASKED;
    }

    fn settle(&mut self, router: &dyn MsiRouter) -> io::Result<()> {
        if !self.enabled || self.masked() {
            return Ok(());
        }
        match &mut self.line {
            Some((_, told)) if *told == self.message => {}
            Some((line, told)) => {
                line.set_message(self.message)?;
                *told = self.message;
            }
            None => self.line = Some((router.connect(self.message)?, self.message)),
        }
        if std::mem::take(&mut self.pending) {
            self.send()?;
        }
        Ok(())
    }

    fn send(&self) -> io::Result<()> {
        self.line.as_ref().map_or(Ok(()), |(line, _)| line.signal())
    }
}

impl Interrupt for Vector {
    fn signal(&self) -> io::Result<()> {
        let mut state = lock(&self.state);
        if !state.enabled {
            return Ok(());
        }
        if state.masked() {
            state.pending = true;
            return Ok(());
        }
        state.send()
    }
}

/// A poisoned lock still holds a whole register file: each change is complete before anything can panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
