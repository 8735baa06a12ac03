//! What the machine has done so far: exits of vCPUs, operations of devices, how long they took.
//!
//! Whoever works counts: each vCPU's thread and each queue's worker has a block of cells of its own, on cache
//! lines of its own, and is the only one that writes to it, so that counting takes no lock and no locked
//! instruction. Whoever asks (`metrics` on the control socket) reads the cells as they are, and nothing stops for it:
//! numbers of one answer may be an operation apart from each other.
//!
//! All numbers begin at zero with the process, or with the device's attachment, and only grow: they go on over
//! resets of the guest. The [`Registry`] knows the blocks; it is locked when one is added, or when someone
//! reads, never to count. What an answer looks like: [`Report`].

mod cells;
mod device;
mod report;
mod vcpu;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

pub use device::{Device, Operation, QueueMeter, lap};
pub use report::{DeviceReport, LatencyReport, OperationReport, Report, VcpuReport};
pub use vcpu::{Exit, Vcpu, VcpuMeter};

/// All that is counted in this process.
#[derive(Default)]
pub struct Registry {
    vcpus: Mutex<BTreeMap<u8, Arc<Vcpu>>>,
    /// They are their devices', and gone with them.
    devices: Mutex<BTreeMap<DeviceName, Weak<Device>>>,
}

/// A kind, and what tells devices of one kind apart.
type DeviceName = (&'static str, String);

impl Registry {
    /// vCPU `id`'s numbers, which are made when first asked for.
    pub fn vcpu(&self, id: u8) -> Arc<Vcpu> {
        Arc::clone(lock(&self.vcpus).entry(id).or_default())
    }

    /// A device's numbers, to be kept as long as it is attached; they are forgotten with the last that is held of
    /// them. `kind` is one that [`DeviceReport::kind`] lists.
    pub fn device(&self, kind: &'static str, id: &str) -> Arc<Device> {
        let name = (kind, id.to_owned());
        let mut devices = lock(&self.devices);
        devices.retain(|_, device| device.strong_count() > 0);
        devices.get(&name).and_then(Weak::upgrade).unwrap_or_else(|| {
            let device = Arc::default();
            devices.insert(name, Arc::downgrade(&device));
            device
        })
    }

    #[must_use]
    pub fn report(&self) -> Report {
        let vcpus = lock(&self.vcpus)
            .iter()
            .map(|(&id, vcpu)| vcpu.report(id))
            .collect();
        let devices = lock(&self.devices)
            .iter()
            .filter_map(|((kind, id), device)| Some(device.upgrade()?.report(kind, id)))
            .collect();
        Report { vcpus, devices }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
