//! The virtio PCI transport, modern only: one function, one 64-bit BAR, MSI-X. Virtio 1.2, section 4.1.
//!
//! The lock here guards registers, which vCPUs touch rarely: a doorbell goes by its event descriptor (KVM
//! signals it without leaving the kernel), an interrupt by its vector, and neither takes the lock.

mod common;
mod layout;
mod state;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::pci::config::ConfigSpace;
use crate::pci::msix::{CONTROL_OFFSET, MsiRouter, Msix};
use crate::pci::{Bar, Decoding, Doorbell, Interrupt, PciFunction};
use crate::snapshot::{Saved, StateError};

use super::interrupt::{ConfigInterrupt, QueueInterrupt, Signals, VectorSlot};
use super::queue::{InvalidQueue, ValidQueue, Virtqueue};
use super::{Activation, GuestMemory, VirtioDevice, feature};
use common::{CommonConfig, Effect, Live, QueueRegisters};
use layout::Region;
use state::Paused;
pub use state::{ExchangeError, SavedDevice};

/// What the transport and its rings can do with every device.
const TRANSPORT_FEATURES: u64 =
    feature(VIRTIO_F_VERSION_1) | feature(VIRTIO_RING_F_INDIRECT_DESC) | feature(VIRTIO_RING_F_EVENT_IDX);

/// A virtio device as a PCI function.
pub struct VirtioPci {
    memory: GuestMemory,
    msix: Msix,
    signals: Arc<Signals>,
    queues: Vec<QueueLines>,
    /// Offsets of the MSI-X and the PCI configuration access capability.
    msix_capability: u16,
    pci_cfg_capability: u16,
    registers: Mutex<Registers>,
}

/// How a queue and its driver wake each other.
struct QueueLines {
    doorbell: EventFd,
    vector: Arc<VectorSlot>,
}

struct Registers {
    config: ConfigSpace,
    common: CommonConfig,
    device: Box<dyn VirtioDevice>,
    /// While the function is paused.
    paused: Option<Paused>,
}

impl VirtioPci {
    /// # Errors
    /// No descriptor is left for the doorbells, or the device has more queues than the BAR has room for.
    pub fn new(
        device: Box<dyn VirtioDevice>,
        memory: GuestMemory,
        msi: Arc<dyn MsiRouter>,
    ) -> io::Result<Arc<Self>> {
        let queue_sizes = device.queue_sizes();
        let vectors = u16::try_from(queue_sizes.len() + 1)
            .ok()
            .filter(|&vectors| vectors <= layout::MAX_VECTORS)
            .ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "too many virtqueues for one function",
                )
            })?;
        let queues = queue_sizes
            .iter()
            .map(|_| {
                let doorbell = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?;
                Ok(QueueLines {
                    doorbell,
                    vector: Arc::default(),
                })
            })
            .collect::<io::Result<_>>()?;
        let msix = Msix::new(msi, vectors);
        let layout = layout::build(device.device_type(), vectors - 1, &msix);
        let features = device.features() | TRANSPORT_FEATURES;
        let common = CommonConfig::new(features, queue_sizes, vectors);
        Ok(Arc::new(Self {
            memory,
            msix,
            signals: Arc::default(),
            queues,
            msix_capability: layout.msix,
            pci_cfg_capability: layout.pci_cfg,
            registers: Mutex::new(Registers {
                config: layout.config,
                common,
                device,
                paused: None,
            }),
        }))
    }

    /// Tells the driver that the device's configuration space has changed.
    pub fn config_changed(&self) {
        self.config_interrupt().config_changed();
    }

    fn config_interrupt(&self) -> ConfigInterrupt {
        ConfigInterrupt::new(Arc::clone(&self.signals))
    }

    fn interrupt(&self, vector: u16) -> Option<Arc<dyn Interrupt>> {
        // NO_VECTOR is beyond all vectors that exist.
        self.msix.vector(vector)
    }

    fn common_write(&self, offset: u64, data: &[u8]) {
        let mut registers = self.registers();
        match registers.common.write(offset, data) {
            Effect::None => {}
            Effect::Reset => self.reset_device(&mut registers),
            Effect::Activate => self.activate(&mut registers),
            Effect::ConfigVector(vector) => self.signals.config_vector.set(self.interrupt(vector)),
            Effect::QueueVector { queue, vector } => {
                if let Some(lines) = self.queues.get(usize::from(queue)) {
                    lines.vector.set(self.interrupt(vector));
                }
            }
            Effect::EnableQueue { queue } => self.enable_queue(&mut registers, queue),
        }
    }

    fn enable_queue(&self, registers: &mut Registers, index: u16) {
        let Some(queue) = registers.common.queues().get(usize::from(index)) else {
            return;
        };
        match self.validate(&registers.common, queue) {
            Ok(_) => registers.common.set_enabled(index),
            Err(error) => self.config_interrupt().needs_reset(&error),
        }
    }

    fn activate(&self, registers: &mut Registers) {
        self.signals.set_driver_ok();
        if self.signals.needs_reset() {
            return;
        }
        let outcome = self
            .queues(&registers.common)
            .map(|queues| self.activation(&registers.common, queues))
            .and_then(|activation| registers.device.activate(activation));
        self.check_activated(outcome);
    }

    fn check_activated(&self, outcome: io::Result<()>) {
        if let Err(error) = outcome {
            tracing::error!(%error, "a virtio device could not be activated");
            self.config_interrupt().needs_reset(&error);
        }
    }

    fn activation(&self, common: &CommonConfig, queues: Vec<Option<Virtqueue>>) -> Activation {
        Activation {
            memory: self.memory.clone(),
            features: common.driver_features(),
            queues,
            config_interrupt: self.config_interrupt(),
        }
    }

    /// The queues that the driver enabled, at the start of their rings.
    fn queues(&self, common: &CommonConfig) -> io::Result<Vec<Option<Virtqueue>>> {
        let queues = common.queues().iter();
        (0..)
            .zip(queues)
            .map(|(index, registers)| {
                let enabled = registers.enabled;
                enabled.then(|| self.queue(common, index, registers)).transpose()
            })
            .collect()
    }

    fn queue(&self, common: &CommonConfig, index: u16, registers: &QueueRegisters) -> io::Result<Virtqueue> {
        let lines = self.queues.get(usize::from(index));
        let lines = lines.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let valid = self.validate(common, registers).map_err(io::Error::other)?;
        let interrupt = QueueInterrupt::new(Arc::clone(&self.signals), Arc::clone(&lines.vector));
        let doorbell = lines.doorbell.try_clone()?;
        Ok(Virtqueue::new(index, valid, interrupt, doorbell))
    }

    fn validate(
        &self,
        common: &CommonConfig,
        registers: &QueueRegisters,
    ) -> Result<ValidQueue, InvalidQueue> {
        let event_idx = common.driver_features() & feature(VIRTIO_RING_F_EVENT_IDX) != 0;
        registers
            .addresses
            .validate(registers.max_size, event_idx, &self.memory)
    }

    /// Workers have stopped before the registers say so: status reads 0 only once the device touches no
    /// memory any more (2.4.1, 4.1.4.3.1).
    fn reset_device(&self, registers: &mut Registers) {
        drop(registers.device.stop());
        registers.paused = None;
        registers.device.reset();
        registers.common.reset();
        self.signals.reset();
        for lines in &self.queues {
            lines.vector.set(None);
        }
    }

    /// Accesses the BAR through configuration space if this is an access of the window's data (4.1.4.9).
    fn pci_cfg_target(&self, config: &ConfigSpace, offset: u16, len: usize) -> Option<u64> {
        let field = |at: u16| {
            let mut bytes = [0; 4];
            config.read(self.pci_cfg_capability + at, &mut bytes);
            u32::from_le_bytes(bytes)
        };
        let bar = field(4) as u8;
        let (target, length) = (field(8), field(12));
        let whole = offset == self.pci_cfg_capability + 16 && length as usize == len;
        let aligned = matches!(len, 1 | 2 | 4) && (target as usize).is_multiple_of(len);
        (whole && aligned && bar == layout::BAR).then_some(u64::from(target))
    }

    fn registers(&self) -> MutexGuard<'_, Registers> {
        self.registers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PciFunction for VirtioPci {
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        let registers = self.registers();
        let target = self.pci_cfg_target(&registers.config, offset, data.len());
        match target {
            Some(target) => {
                drop(registers);
                self.bar_read(layout::BAR, target, data);
            }
            None => registers.config.read(offset, data),
        }
    }

    fn config_write(&self, offset: u16, data: &[u8]) -> Decoding {
        let mut registers = self.registers();
        if let Some(target) = self.pci_cfg_target(&registers.config, offset, data.len()) {
            drop(registers);
            self.bar_write(layout::BAR, target, data);
            return Decoding::Same;
        }
        let decoding = registers.config.write(offset, data);
        let control = self.msix_capability + CONTROL_OFFSET;
        let end = usize::from(offset) + data.len();
        if offset < control + 2 && end > usize::from(control) {
            let mut bytes = [0; 2];
            registers.config.read(control, &mut bytes);
            self.msix.control_write(u16::from_le_bytes(bytes));
        }
        decoding
    }

    fn bars(&self) -> Vec<Bar> {
        self.registers().config.bars()
    }

    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let Some((region, offset)) = layout::locate(offset).filter(|_| bar == layout::BAR) else {
            return;
        };
        match region {
            Region::Common => {
                let registers = self.registers();
                let live = Live {
                    needs_reset: self.signals.needs_reset(),
                    config_generation: self.signals.config_generation(),
                };
                registers.common.read(offset, data, live);
            }
            Region::Isr => {
                if let (0, Some(byte)) = (offset, data.first_mut()) {
                    *byte = self.signals.take_isr();
                }
            }
            Region::Device => self.registers().device.config_read(offset, data),
            Region::Notify => {}
            Region::MsixTable => self.msix.table_read(offset, data),
            Region::MsixPba => self.msix.pba_read(offset, data),
        }
    }

    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) {
        let Some((region, offset)) = layout::locate(offset).filter(|_| bar == layout::BAR) else {
            return;
        };
        match region {
            Region::Common => self.common_write(offset, data),
            Region::Device => self.registers().device.config_write(offset, data),
            Region::Notify => {
                let queue = offset / u64::from(layout::NOTIFY_OFF_MULTIPLIER);
                let lines = usize::try_from(queue)
                    .ok()
                    .and_then(|queue| self.queues.get(queue));
                // A full event counter has been rung anyway.
                let _ = lines.map(|lines| lines.doorbell.write(1));
            }
            Region::MsixTable => self.msix.table_write(offset, data),
            Region::Isr | Region::MsixPba => {}
        }
    }

    fn doorbells(&self) -> Vec<Doorbell> {
        (0..)
            .zip(&self.queues)
            .filter_map(|(queue, lines)| {
                // Without a descriptor of its own the doorbell still rings, by `bar_write`.
                let event = lines.doorbell.try_clone().ok()?;
                Some(Doorbell {
                    bar: layout::BAR,
                    offset: layout::doorbell_offset(queue),
                    event,
                })
            })
            .collect()
    }

    fn reset(&self) {
        let mut registers = self.registers();
        self.reset_device(&mut registers);
        registers.config.reset();
        self.msix.reset();
    }

    fn pause(&self) {
        self.pause_device();
    }

    fn resume(&self) {
        self.resume_device();
    }

    fn save(&self) -> Result<Saved, StateError> {
        self.save_registers()
    }

    fn restore(&self, state: &Saved) -> Result<(), StateError> {
        self.restore_registers(state)
    }
}

#[cfg(test)]
mod tests;
