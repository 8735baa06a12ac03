//! The KVM machine: its descriptor, its RAM slots, its interrupt controllers.

use std::io;
use std::sync::Arc;

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VmFd};
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};

use crate::interrupts::Router;
use crate::memory::{GuestMemory, KVM_IDENTITY_MAP, KVM_TSS_BASE};

/// A KVM virtual machine without vCPUs yet.
pub struct Vm {
    pub fd: Arc<VmFd>,
    pub router: Arc<Router>,
    /// Keeps mapped what KVM's memory slots point to.
    memory: GuestMemory,
}

impl Vm {
    /// Makes the machine, with local APICs, IOAPIC and PIC in the kernel, and without RAM as yet. There is no
    /// PIT: hardware-reduced ACPI guests do not look for one.
    ///
    /// # Errors
    /// KVM refused, in the words of the system call.
    pub fn new(kvm: &Kvm, memory: &GuestMemory) -> io::Result<Self> {
        let fd = Arc::new(kvm.create_vm()?);
        fd.set_identity_map_address(KVM_IDENTITY_MAP)?;
        fd.set_tss_address(KVM_TSS_BASE as usize)?;
        fd.create_irq_chip()?;
        Ok(Self {
            router: Arc::new(Router::new(Arc::clone(&fd))),
            fd,
            memory: memory.clone(),
        })
    }

    /// Gives the machine its RAM. KVM waits for a grace period here, milliseconds on a busy host: let other
    /// things be done meanwhile.
    ///
    /// # Errors
    /// KVM refused a slot.
    pub fn plug_memory(&self) -> io::Result<()> {
        let memory = &self.memory;
        for (slot, region) in (0..).zip(memory.iter()) {
            let host = memory
                .get_host_address(region.start_addr())
                .map_err(io::Error::other)?;
            let slot = kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr: region.start_addr().raw_value(),
                memory_size: region.len(),
                userspace_addr: host as u64,
            };
            // SAFETY: the region is mapped with this size, and `self.memory` keeps it mapped as long as the
            // machine lives.
            unsafe { self.fd.set_user_memory_region(slot)? };
        }
        Ok(())
    }
}
