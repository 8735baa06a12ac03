//! Interrupts from a device to its driver: one per queue, and one for the configuration.
//!
//! The driver may point a queue or the configuration at another MSI-X vector at any time, so workers hold a
//! slot and not the vector. Virtio 1.2, sections 2.1.2 (NEEDS_RESET), 4.1.4.5 (ISR).

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

use crate::pci::Interrupt;

const ISR_QUEUE: u8 = 1 << 0;
const ISR_CONFIG: u8 = 1 << 1;

/// Broken queues that are logged, per device: a guest can break its device in a loop, and must not fill the log.
const LOGGED_FAULTS: u32 = 16;

/// The MSI-X vector that someone signals, if any.
#[derive(Default)]
pub(super) struct VectorSlot(RwLock<Option<Arc<dyn Interrupt>>>);

impl VectorSlot {
    pub(super) fn set(&self, interrupt: Option<Arc<dyn Interrupt>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = interrupt;
    }

    fn signal(&self) {
        let slot = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(interrupt) = slot.as_ref()
            && let Err(error) = interrupt.signal()
        {
            tracing::error!(%error, "an interrupt was lost");
        }
    }
}

/// What workers tell the transport without taking its lock.
#[derive(Default)]
pub(super) struct Signals {
    isr: AtomicU8,
    needs_reset: AtomicBool,
    driver_ok: AtomicBool,
    config_generation: AtomicU8,
    faults: AtomicU32,
    pub(super) config_vector: VectorSlot,
}

impl Signals {
    /// Reading ISR clears it.
    pub(super) fn take_isr(&self) -> u8 {
        self.isr.swap(0, Ordering::AcqRel)
    }

    pub(super) fn needs_reset(&self) -> bool {
        self.needs_reset.load(Ordering::Acquire)
    }

    pub(super) fn config_generation(&self) -> u8 {
        self.config_generation.load(Ordering::Acquire)
    }

    /// ISR and configuration generation, without clearing ISR.
    pub(super) fn save(&self) -> SavedSignals {
        SavedSignals {
            isr: self.isr.load(Ordering::Acquire),
            needs_reset: self.needs_reset(),
            driver_ok: self.driver_ok.load(Ordering::Acquire),
            config_generation: self.config_generation(),
        }
    }

    pub(super) fn restore(&self, saved: SavedSignals) {
        self.isr.store(saved.isr, Ordering::Release);
        self.needs_reset.store(saved.needs_reset, Ordering::Release);
        self.driver_ok.store(saved.driver_ok, Ordering::Release);
        self.config_generation
            .store(saved.config_generation, Ordering::Release);
    }

    /// From now on a broken device is announced by an interrupt too.
    pub(super) fn set_driver_ok(&self) {
        self.driver_ok.store(true, Ordering::Release);
        if self.needs_reset() {
            self.signal_config();
        }
    }

    /// After a reset, when no worker runs.
    pub(super) fn reset(&self) {
        self.driver_ok.store(false, Ordering::Release);
        self.needs_reset.store(false, Ordering::Release);
        self.isr.store(0, Ordering::Release);
        self.config_vector.set(None);
    }

    fn signal_config(&self) {
        self.isr.fetch_or(ISR_CONFIG, Ordering::AcqRel);
        self.config_vector.signal();
    }
}

/// What a snapshot keeps of [`Signals`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedSignals {
    isr: u8,
    needs_reset: bool,
    driver_ok: bool,
    config_generation: u8,
}

/// Tells the driver about the device as a whole.
#[derive(Clone)]
pub struct ConfigInterrupt(Arc<Signals>);

impl ConfigInterrupt {
    pub(super) fn new(signals: Arc<Signals>) -> Self {
        Self(signals)
    }

    /// The device cannot go on with what the driver gave it: sets `DEVICE_NEEDS_RESET` until the driver resets.
    pub fn needs_reset(&self, reason: &dyn Display) {
        let faults = self.0.faults.fetch_add(1, Ordering::Relaxed);
        if faults < LOGGED_FAULTS {
            tracing::warn!(%reason, "the driver broke its device, which needs a reset");
        }
        self.0.needs_reset.store(true, Ordering::Release);
        if self.0.driver_ok.load(Ordering::Acquire) {
            self.0.signal_config();
        }
    }

    /// The device's configuration space has changed.
    pub fn config_changed(&self) {
        self.0.config_generation.fetch_add(1, Ordering::AcqRel);
        if self.0.driver_ok.load(Ordering::Acquire) {
            self.0.signal_config();
        }
    }
}

/// Tells the driver that a queue has used buffers.
#[derive(Clone)]
pub(super) struct QueueInterrupt {
    signals: Arc<Signals>,
    vector: Arc<VectorSlot>,
}

impl QueueInterrupt {
    pub(super) fn new(signals: Arc<Signals>, vector: Arc<VectorSlot>) -> Self {
        Self { signals, vector }
    }

    pub(super) fn signal(&self) {
        self.signals.isr.fetch_or(ISR_QUEUE, Ordering::AcqRel);
        self.vector.signal();
    }
}
