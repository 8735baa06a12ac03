//! A function that rests: paused with its queues kept, saved as all that its driver can see, restored.
//!
//! The driver notices nothing of a pause. After a restore it may get an interrupt without news: one that was on
//! its way when the snapshot was made is not in it, so each queue and the configuration interrupt once.

use serde::{Deserialize, Serialize};

use crate::pci::msix::{CONTROL_OFFSET, SavedVector};
use crate::snapshot::{Saved, StateError};

use super::super::VirtioDevice;
use super::super::interrupt::SavedSignals;
use super::super::queue::{Progress, Virtqueue};
use super::common::CommonConfig;
use super::{Registers, TRANSPORT_FEATURES, VirtioPci};

const PART: &str = "virtio device";

/// What a paused function keeps for the time when it goes on.
pub(super) struct Paused {
    /// By number; those that the driver enabled, if it drives the device.
    queues: Vec<Option<Virtqueue>>,
    /// Nobody knows which interrupts got lost.
    restored: bool,
}

impl Paused {
    fn progress(&self) -> Vec<Option<Progress>> {
        let queues = self.queues.iter();
        queues
            .map(|queue| queue.as_ref().map(Virtqueue::progress))
            .collect()
    }
}

#[derive(Serialize, Deserialize)]
struct State {
    device_type: u16,
    config: Vec<u8>,
    msix: Vec<SavedVector>,
    signals: SavedSignals,
    common: CommonConfig,
    /// Of the enabled queues, if the device is driven.
    progress: Vec<Option<Progress>>,
    device: Saved,
}

/// The device behind a saved function, for whoever has to make one that its driver can go on with.
pub struct SavedDevice {
    /// What the device itself saved.
    pub state: Saved,
    /// The device's own features that the driver has accepted, if one has begun to drive it.
    pub accepted: Option<u64>,
}

impl SavedDevice {
    /// # Errors
    /// It is no function's state.
    pub fn read(function: &Saved) -> Result<Self, StateError> {
        let State { common, device, .. } = function.read(PART)?;
        let accepted = common.driver_features() & !TRANSPORT_FEATURES;
        Ok(Self {
            state: device,
            accepted: common.has_driver().then_some(accepted),
        })
    }
}

/// Why a driver keeps the device that it has.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    #[error("the other one {0}")]
    Unfit(&'static str),
    #[error("taking over its state")]
    State(#[from] StateError),
}

impl VirtioPci {
    pub(super) fn pause_device(&self) {
        let mut registers = self.registers();
        if registers.paused.is_some() {
            return;
        }
        let stopped = registers.device.stop();
        let mut queues = self.queues_as_used(&registers);
        for queue in stopped {
            if let Some(place) = queues.get_mut(usize::from(queue.index())) {
                *place = Some(queue);
            }
        }
        registers.paused = Some(Paused {
            queues,
            restored: false,
        });
    }

    pub(super) fn resume_device(&self) {
        let mut registers = self.registers();
        let Some(paused) = registers.paused.take() else {
            return;
        };
        // What needs a reset waits for it, and not for requests.
        if !registers.common.is_driven() || self.signals.needs_reset() {
            return;
        }
        if paused.restored {
            for queue in paused.queues.iter().flatten() {
                queue.interrupt_anyway();
            }
        }
        let activation = self.activation(&registers.common, paused.queues);
        let outcome = registers.device.activate(activation);
        self.check_activated(outcome);
        if paused.restored {
            // Also because a clone's disk may have another size.
            self.config_changed();
        }
    }

    /// Whether a driver works with the device, and may wait for its answers.
    #[must_use]
    pub fn is_driven(&self) -> bool {
        self.registers().common.is_driven()
    }

    /// Puts another device in the place of the paused function's.
    ///
    /// # Errors
    /// Its driver cannot go on with that one.
    pub fn exchange_device(&self, mut device: Box<dyn VirtioDevice>) -> Result<(), ExchangeError> {
        let mut registers = self.registers();
        let there = &registers.device;
        let accepted = registers.common.driver_features() & !TRANSPORT_FEATURES;
        let fault = if device.device_type() != there.device_type() {
            Some("is of another type")
        } else if device.queue_sizes() != there.queue_sizes() {
            Some("has other queues")
        } else if accepted & !device.features() != 0 {
            Some("can do less than the driver has accepted")
        } else {
            None
        };
        if let Some(fault) = fault {
            return Err(ExchangeError::Unfit(fault));
        }
        device.restore(&there.save()?)?;
        registers.device = device;
        Ok(())
    }

    pub(super) fn save_registers(&self) -> Result<Saved, StateError> {
        let registers = self.registers();
        let state = State {
            device_type: registers.device.device_type() as u16,
            config: registers.config.save(),
            msix: self.msix.save(),
            signals: self.signals.save(),
            progress: registers.paused.as_ref().map_or_else(Vec::new, Paused::progress),
            common: registers.common.clone(),
            device: registers.device.save()?,
        };
        Saved::of(PART, &state)
    }

    /// The enabled queues of a driven device, as far as their used rings say.
    fn queues_as_used(&self, registers: &Registers) -> Vec<Option<Virtqueue>> {
        if !registers.common.is_driven() {
            return Vec::new();
        }
        // Where it fails now it failed when the driver enabled the queue.
        let queues = self.queues(&registers.common).unwrap_or_default();
        let queues = queues.into_iter();
        queues.map(|queue| queue?.go_on_as_used().ok()).collect()
    }

    pub(super) fn restore_registers(&self, saved: &Saved) -> Result<(), StateError> {
        let state: State = saved.read(PART)?;
        let mut registers = self.registers();
        let device_type = registers.device.device_type() as u16;
        if state.device_type != device_type {
            return Err(StateError::Unfit(format!(
                "a virtio device is of type {} in it and {device_type} here",
                state.device_type
            )));
        }
        registers.config.restore(&state.config)?;
        registers.common.restore(state.common)?;
        registers.device.restore(&state.device)?;
        self.signals.restore(state.signals);
        let mut control = [0; 2];
        registers
            .config
            .read(self.msix_capability + CONTROL_OFFSET, &mut control);
        self.msix.restore(&state.msix, u16::from_le_bytes(control))?;
        let vector = registers.common.config_vector();
        self.signals.config_vector.set(self.interrupt(vector));
        for (lines, queue) in self.queues.iter().zip(registers.common.queues()) {
            lines.vector.set(self.interrupt(queue.vector));
        }
        let mut queues = match registers.common.is_driven() {
            true => self
                .queues(&registers.common)
                .map_err(StateError::host("taking over virtqueues"))?,
            false => Vec::new(),
        };
        for (queue, progress) in queues.iter_mut().zip(&state.progress) {
            if let (Some(queue), Some(progress)) = (queue, progress) {
                queue.go_on_from(*progress);
            }
        }
        registers.paused = Some(Paused {
            queues,
            restored: true,
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests;
