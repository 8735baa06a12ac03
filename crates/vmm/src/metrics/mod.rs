//! What the machine has done so far: exits of vCPUs, operations of devices, how long they took.
//!
//! Whoever works counts: each vCPU's thread and each queue's worker has a block of cells of its own, on cache
//! lines of its own, and is the only one that writes to it, so that counting takes no lock and no locked
//! instruction. Whoever asks (`metrics` on the control socket) reads the cells as they are, and nothing stops for it:
//! numbers of one answer may be an operation apart from each other.
//!
//! All numbers begin at zero with the process, or with the device's attachment, and only grow: they go on over
//! resets of the guest. The [`Registry`] knows the blocks; it is locked when one is added or removed, or when
//! someone reads, never to count. What an answer looks like: [`Report`].

mod cells;
mod device;
mod report;
mod vcpu;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use device::{Device, Operation, QueueMeter};
pub use report::{DeviceReport, LatencyReport, OperationReport, Report, VcpuReport};
pub use vcpu::{Exit, Vcpu, VcpuMeter};

/// All that is counted in this process.
#[derive(Default)]
pub struct Registry {
    vcpus: Mutex<BTreeMap<u8, Arc<Vcpu>>>,
    devices: Mutex<BTreeMap<DeviceName, Arc<Device>>>,
}

/// A kind, and what tells devices of one kind apart.
type DeviceName = (&'static str, String);

impl Registry {
    /// vCPU `id`'s numbers, which are made when first asked for.
    pub fn vcpu(&self, id: u8) -> Arc<Vcpu> {
        Arc::clone(lock(&self.vcpus).entry(id).or_default())
    }

    /// A device's numbers, which are made when first asked for; the next boot counts on in them. `kind` is one
    /// that [`DeviceReport::kind`] lists.
    pub fn device(&self, kind: &'static str, id: &str) -> Arc<Device> {
        Arc::clone(lock(&self.devices).entry((kind, id.to_owned())).or_default())
    }

    /// Forgets a device that was detached.
    pub fn remove_device(&self, kind: &'static str, id: &str) {
        lock(&self.devices).remove(&(kind, id.to_owned()));
    }

    #[must_use]
    pub fn report(&self) -> Report {
        let vcpus = lock(&self.vcpus)
            .iter()
            .map(|(&id, vcpu)| vcpu.report(id))
            .collect();
        let devices = lock(&self.devices)
            .iter()
            .map(|((kind, id), device)| device.report(kind, id))
            .collect();
        Report { vcpus, devices }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
