//! Devices that come, go and grow while the machine runs.
//!
//! What is attached is in the plan, and so also in the boots to come. A device that the guest was asked to let go
//! is gone from the plan when the guest has done so, when a client forces it, or when the guest resets: the next
//! boot is built without it. What else the guest lets go stood in for a device of the plan, which comes then.

use std::io;
use std::os::fd::{OwnedFd, RawFd};

use super::{Lifecycle, chain};
use crate::control::{DeviceStatus, DiskStatus, Event, VmState};
use crate::devices::{Backend, DeviceError};
use crate::machine::Machine;
use crate::open::{OpenError, Passed, open_disk, open_nic, open_taps};
use crate::spec::{DiskSpec, NicSpec};
use crate::virtio::pci::ExchangeError;

/// Why the machine's devices stay as they are.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChangeError {
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error("opening device {device:?}")]
    Open {
        device: String,
        #[source]
        source: OpenError,
    },
    #[error("{doing} device {device:?}")]
    Host {
        doing: &'static str,
        device: String,
        #[source]
        source: io::Error,
    },
    #[error("device {0:?} is no disk")]
    NoDisk(String),
    #[error("giving the driver of device {device:?} another one")]
    Exchange {
        device: String,
        #[source]
        source: ExchangeError,
    },
    #[error("the machine does not run")]
    NotRunning,
}

impl Lifecycle {
    pub(super) fn device_list(&self, machine: &Machine) -> Vec<DeviceStatus> {
        let devices = self.plan.devices.iter();
        devices
            .map(|(slot, entry)| DeviceStatus {
                device: entry.id.clone(),
                kind: entry.backend.kind().to_owned(),
                slot,
                leaving: entry.leaving,
                replacing: machine.slots.is_stand_in(slot),
                disk: match &entry.backend {
                    Backend::Disk(plan) => Some(DiskStatus {
                        size_bytes: plan.disk.size(),
                        rate_limit: plan.limiter.limit(),
                    }),
                    _ => None,
                },
            })
            .collect()
    }

    pub(super) fn attach_disk(
        &mut self,
        spec: &DiskSpec,
        descriptors: Vec<OwnedFd>,
        machine: &mut Machine,
    ) -> Result<(), ChangeError> {
        let opened = open_disk(&mut Passed::new(descriptors), spec, &self.plan.bases);
        self.attach(&spec.id, opened.map(Backend::Disk), machine)
    }

    pub(super) fn attach_nic(
        &mut self,
        spec: &NicSpec,
        descriptors: Vec<OwnedFd>,
        machine: &mut Machine,
    ) -> Result<(), ChangeError> {
        let opened = open_nic(&mut Passed::new(descriptors), spec);
        self.attach(&spec.id, opened.map(Backend::Nic), machine)
    }

    fn attach(
        &mut self,
        id: &str,
        opened: Result<Backend, OpenError>,
        machine: &mut Machine,
    ) -> Result<(), ChangeError> {
        let backend = opened.map_err(|source| ChangeError::Open {
            device: id.to_owned(),
            source,
        })?;
        let slot = self.plan.devices.add(id, backend)?;
        self.insert(slot, machine).map_err(|source| {
            self.forget(slot);
            ChangeError::Host {
                doing: "attaching",
                device: id.to_owned(),
                source,
            }
        })
    }

    /// Makes the plan's device for a slot that the guest has empty, and tells the guest.
    fn insert(&self, slot: u8, machine: &mut Machine) -> io::Result<()> {
        let Some(entry) = self.plan.devices.in_slot(slot) else {
            return Ok(());
        };
        let device = entry.build(self.plan.vcpus, &self.plan.metrics, &machine.notices)?;
        machine.slots.attach(slot, device)
    }

    /// Gives a NIC the TAP that comes along: the device is made anew in its place while the machine is paused.
    pub(super) fn replace_tap(
        &mut self,
        id: &str,
        tap_fds: &[RawFd],
        descriptors: Vec<OwnedFd>,
        machine: &mut Machine,
    ) -> Result<(), ChangeError> {
        let runs = self.runs()?;
        let taps = open_taps(&mut Passed::new(descriptors), tap_fds).map_err(|source| ChangeError::Open {
            device: id.to_owned(),
            source,
        })?;
        let old = self.plan.devices.exchange_taps(id, taps)?;
        machine.pause().map_err(|_| ChangeError::NotRunning)?;
        let rebuilt = self.rebuild(id, machine);
        if runs {
            machine.resume();
        }
        if rebuilt.is_err() {
            self.plan.devices.exchange_taps(id, old)?;
        }
        rebuilt
    }

    /// Makes a device of a paused machine anew, as the plan has it now, for the driver that has the old one.
    fn rebuild(&self, id: &str, machine: &mut Machine) -> Result<(), ChangeError> {
        let (slot, entry) = self.plan.devices.get(id)?;
        if machine.slots.is_stand_in(slot) {
            return Ok(());
        }
        let device = entry
            .build(self.plan.vcpus, &self.plan.metrics, &machine.notices)
            .map_err(|source| ChangeError::Host {
                doing: "making anew",
                device: id.to_owned(),
                source,
            })?;
        machine
            .slots
            .exchange(slot, device)
            .map_err(|source| ChangeError::Exchange {
                device: id.to_owned(),
                source,
            })
    }

    /// Asks the guest to let a device go, or takes it out without asking.
    pub(super) fn detach(&mut self, id: &str, force: bool, machine: &mut Machine) -> Result<(), ChangeError> {
        let slot = self.plan.devices.ask_to_leave(id)?;
        if force {
            self.take_away(slot, machine);
            return Ok(());
        }
        machine
            .slots
            .ask_to_eject(slot)
            .map_err(|source| ChangeError::Host {
                doing: "asking the guest to let go",
                device: id.to_owned(),
                source,
            })
    }

    /// Takes a device out of the machine. A driver of a disk gets answers all the same, from one that fails, until the guest
    /// has let that go.
    fn take_away(&mut self, slot: u8, machine: &mut Machine) {
        let taken = match machine.slots.is_driven(slot) {
            true => self.plan.devices.take_away(slot),
            // Nobody waits for an answer.
            false => None,
        };
        let Some((device, Backend::Disk(plan))) = taken else {
            machine.slots.remove(slot);
            self.finish_leave(slot);
            return;
        };
        if let Err(error) = self.exchange(slot, machine) {
            tracing::warn!(
                error = chain(&error),
                device,
                "the guest has no device in its place"
            );
            machine.slots.remove(slot);
            self.plan.devices.remove(slot);
        }
        plan.flush(&device);
        drop(plan);
        self.announce(&Event::DeviceDetached { device });
    }

    /// Has the guest go on with what the plan has for a slot now, and asks it to let that go.
    fn exchange(&self, slot: u8, machine: &mut Machine) -> Result<(), ChangeError> {
        let runs = self.runs()?;
        let Some(entry) = self.plan.devices.in_slot(slot) else {
            return Ok(());
        };
        machine.pause().map_err(|_| ChangeError::NotRunning)?;
        let rebuilt = self.rebuild(&entry.id, machine);
        if runs {
            machine.resume();
        }
        rebuilt?;
        machine
            .slots
            .ask_to_eject(slot)
            .map_err(|source| ChangeError::Host {
                doing: "asking the guest to let go",
                device: entry.id.clone(),
                source,
            })
    }

    /// Whether the machine runs, and not only could.
    pub(super) fn runs(&self) -> Result<bool, ChangeError> {
        match self.queue.state() {
            VmState::Running => Ok(true),
            VmState::Paused => Ok(false),
            VmState::Starting | VmState::Ending => Err(ChangeError::NotRunning),
        }
    }

    /// Takes on the size that a disk's files have now.
    pub(super) fn resize(&self, id: &str, machine: &Machine) -> Result<u64, ChangeError> {
        let (slot, entry) = self.plan.devices.get(id)?;
        let Backend::Disk(plan) = &entry.backend else {
            return Err(ChangeError::NoDisk(id.to_owned()));
        };
        let bytes = plan.disk.refresh_size().map_err(|source| ChangeError::Host {
            doing: "looking at the size of",
            device: id.to_owned(),
            source,
        })?;
        machine.slots.config_changed(slot);
        Ok(bytes)
    }

    /// After the guest has emptied slots.
    pub(super) fn finish_leaves(&mut self, machine: &mut Machine) {
        // The slots themselves know; a notice may be about a device that was taken out by force meanwhile.
        let taken = |slot| machine.slots.is_taken(slot);
        for (slot, leaving) in self.plan.devices.emptied(taken) {
            machine.slots.remove(slot);
            if leaving {
                self.finish_leave(slot);
            } else {
                self.replace(slot, machine);
            }
        }
    }

    /// The guest has let go of what stood in for a slot's device.
    fn replace(&mut self, slot: u8, machine: &mut Machine) {
        let inserted = self.insert(slot, machine);
        let Some(entry) = self.plan.devices.in_slot(slot) else {
            return;
        };
        let device = entry.id.clone();
        match inserted {
            Ok(()) => self.announce(&Event::DeviceReplaced { device }),
            // The next boot has it, or fails with it.
            Err(error) => tracing::error!(%error, device, "giving the guest its own device"),
        }
    }

    /// Between two boots: who was to leave does not come back.
    pub(super) fn finish_all_leaves(&mut self) {
        for slot in self.plan.devices.leaving() {
            self.finish_leave(slot);
        }
    }

    /// The slot's device is out: closes what it was made of, and says so.
    fn finish_leave(&mut self, slot: u8) {
        if let Some(device) = self.forget(slot) {
            self.announce(&Event::DeviceDetached { device });
        }
    }

    fn forget(&mut self, slot: u8) -> Option<String> {
        let entry = self.plan.devices.remove(slot)?;
        entry.flush();
        Some(entry.id)
    }
}
