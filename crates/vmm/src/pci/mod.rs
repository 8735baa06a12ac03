//! The PCI root: one bus, ECAM configuration space, 64-bit BARs, MSI-X. PCI Local Bus 3.0, PCIe base 5.0.

pub mod config;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod fuzz;
pub mod hotplug;
mod mappings;
pub mod msix;
pub mod ports;
pub mod root;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod testing;

use std::io;

use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use vmm_sys_util::eventfd::EventFd;

use crate::snapshot::{Saved, StateError};

/// A PCI function on bus 0. vCPU threads call it concurrently; what it keeps behind a lock is its register
/// file only, never its data path.
pub trait PciFunction: Send + Sync {
    /// Reads configuration space at a byte `offset` (0 to 4095); `data` is 1, 2 or 4 bytes, naturally aligned.
    fn config_read(&self, offset: u16, data: &mut [u8]);
    /// Writes configuration space; says whether BARs or their decoding changed, so that the bus maps them anew.
    fn config_write(&self, offset: u16, data: &[u8]) -> Decoding;
    /// Where the function's memory BARs are now: only those that it decodes (command register, memory space).
    fn bars(&self) -> Vec<Bar>;
    /// Reads `data.len()` bytes (1, 2, 4 or 8) at `offset` within BAR `bar`.
    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]);
    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]);
    /// Descriptors that KVM signals in place of `bar_write` (ioeventfd), any data, any length.
    fn doorbells(&self) -> Vec<Doorbell>;
    /// Back to the state after power-on; workers have stopped when it returns.
    fn reset(&self);

    /// Stops workers without the driver's noticing; no vCPU runs. A function without workers does nothing.
    fn pause(&self) {}

    /// Goes on after [`Self::pause`] or [`Self::restore`]; no vCPU runs yet.
    fn resume(&self) {}

    /// All that the driver can see of the function; called while it is paused.
    ///
    /// # Errors
    /// The state cannot be encoded, or what the guest keeps of it cannot be read.
    fn save(&self) -> Result<Saved, StateError> {
        Ok(Saved::default())
    }

    /// Takes over what [`Self::save`] gave, and is paused then. The bytes may be a stranger's.
    ///
    /// # Errors
    /// It is not the state of such a function.
    fn restore(&self, state: &Saved) -> Result<(), StateError> {
        let _ = state;
        Ok(())
    }
}

/// What a configuration write did to the function's address decoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoding {
    Same,
    Changed,
}

/// A memory BAR that is decoded now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bar {
    pub index: u8,
    pub address: u64,
    /// Bytes, a power of two.
    pub size: u64,
}

/// A write to `offset` of BAR `bar` signals `event`.
#[derive(Debug)]
pub struct Doorbell {
    pub bar: u8,
    pub offset: u64,
    pub event: EventFd,
}

/// Who signals doorbells' events in place of the bus, without leaving the kernel: KVM.
pub trait IoEvents: Send + Sync {
    /// A write to `address`, of any data and length, signals `event` from now on.
    ///
    /// # Errors
    /// There is another one already, or there are too many.
    fn register(&self, address: u64, event: &EventFd) -> io::Result<()>;

    /// # Errors
    /// There is none.
    fn unregister(&self, address: u64, event: &EventFd) -> io::Result<()>;
}

impl IoEvents for VmFd {
    fn register(&self, address: u64, event: &EventFd) -> io::Result<()> {
        Ok(self.register_ioevent(event, &IoEventAddress::Mmio(address), NoDatamatch)?)
    }

    fn unregister(&self, address: u64, event: &EventFd) -> io::Result<()> {
        Ok(self.unregister_ioevent(event, &IoEventAddress::Mmio(address), NoDatamatch)?)
    }
}

/// A message-signalled interrupt as a device's worker sees it.
pub trait Interrupt: Send + Sync {
    /// Delivers the interrupt, or marks it pending while the guest masks it.
    fn signal(&self) -> io::Result<()>;
}
