//! The KVM machine: its descriptor, its RAM slots, its interrupt controllers.

use std::io;
use std::sync::Arc;

use kvm_bindings::{
    KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_MEM_LOG_DIRTY_PAGES,
    kvm_clock_data, kvm_irqchip, kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, Kvm, VmFd};
use serde::{Deserialize, Serialize};
use vm_memory::mmap::MmapRegion;
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};

use crate::cpu::msrs;
use crate::interrupts::Router;
use crate::memory::{GuestMemory, KVM_IDENTITY_MAP, KVM_TSS_BASE};
use crate::snapshot::StateError;
use crate::vcpu::Shape;

/// Interrupt controllers and clock: what a machine has beside its vCPUs, memory and devices. Interrupt routes are
/// not in it; they follow from the devices' MSI-X tables.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VmState {
    chips: Vec<kvm_irqchip>,
    clock: kvm_clock_data,
}

/// A KVM virtual machine without vCPUs yet.
pub struct Vm {
    pub fd: Arc<VmFd>,
    pub router: Arc<Router>,
    /// Keeps mapped what KVM's memory slots point to.
    memory: GuestMemory,
}

impl Vm {
    /// Makes the machine, with its RAM, and with local APICs, IOAPIC and PIC in the kernel. There is no PIT:
    /// hardware-reduced ACPI guests do not look for one.
    ///
    /// # Errors
    /// KVM refused, in the words of the system call.
    pub fn new(kvm: &Kvm, memory: &GuestMemory) -> io::Result<Self> {
        let fd = Arc::new(kvm.create_vm()?);
        let vm = Self {
            router: Arc::new(Router::new(Arc::clone(&fd))),
            fd,
            memory: memory.clone(),
        };
        // First: the kernel waits for a grace period here, which takes microseconds if there has been none just before,
        // and four ticks (16 ms) within 25 µs of one, as memory slots have it.
        msrs::filter(&vm.fd)?;
        vm.fd.set_identity_map_address(KVM_IDENTITY_MAP)?;
        vm.fd.set_tss_address(KVM_TSS_BASE as usize)?;
        // Before the controllers: they leave something to be freed after a grace period, and this would wait until it
        // is over, for milliseconds.
        vm.set_memory(0)?;
        vm.fd.create_irq_chip()?;
        Ok(vm)
    }

    #[must_use]
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// Has KVM log from now on which pages the guest writes, or stop it. Turning it on costs the guest a fault
    /// for each page that it writes between two looks.
    ///
    /// # Errors
    /// KVM refused a slot.
    pub fn log_dirty_pages(&self, on: bool) -> io::Result<()> {
        self.set_memory(if on { KVM_MEM_LOG_DIRTY_PAGES } else { 0 })
    }

    /// Takes the pages that guest and devices have written since the last call, 64 a word, of one region of RAM
    /// after the other. Neither may be running.
    ///
    /// # Errors
    /// KVM keeps no log.
    pub fn take_dirty_pages(&self) -> io::Result<Vec<u64>> {
        let mut words = Vec::new();
        for (slot, region) in (0..).zip(self.memory.iter()) {
            let by_guest = self.fd.get_dirty_log(slot, MmapRegion::size(region))?;
            let by_devices = MmapRegion::bitmap(region).take();
            words.extend(
                by_guest
                    .iter()
                    .zip(by_devices)
                    .map(|(guest, devices)| guest | devices),
            );
        }
        Ok(words)
    }

    /// What this host's KVM keeps of a vCPU.
    ///
    /// # Errors
    /// KVM does not say.
    pub fn vcpu_shape(&self, kvm: &Kvm) -> io::Result<Shape> {
        const CLASSICAL: usize = 4096;
        let xsave = usize::try_from(self.fd.check_extension_int(Cap::Xsave2)).unwrap_or(0);
        Ok(Shape {
            msrs: kvm.get_msr_index_list()?.as_slice().to_vec(),
            xsave_extra: xsave.saturating_sub(CLASSICAL).div_ceil(4),
        })
    }

    /// Reads interrupt controllers and clock; no vCPU runs.
    ///
    /// # Errors
    /// KVM refused.
    pub fn save(&self) -> Result<VmState, StateError> {
        let save = || -> io::Result<VmState> {
            let chips = [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC];
            let chip = |chip_id| -> io::Result<kvm_irqchip> {
                let mut chip = kvm_irqchip {
                    chip_id,
                    ..Default::default()
                };
                self.fd.get_irqchip(&mut chip)?;
                Ok(chip)
            };
            Ok(VmState {
                chips: chips.into_iter().map(chip).collect::<io::Result<_>>()?,
                clock: self.fd.get_clock()?,
            })
        };
        save().map_err(StateError::host("reading interrupt controllers and clock"))
    }

    /// Gives a fresh machine this state. Its kvmclock goes on where it was.
    ///
    /// # Errors
    /// KVM refused: the state is no machine's.
    pub fn restore(&self, state: &VmState) -> Result<(), StateError> {
        let restore = || -> io::Result<()> {
            for chip in &state.chips {
                self.fd.set_irqchip(chip)?;
            }
            let clock = kvm_clock_data {
                clock: state.clock.clock,
                ..Default::default()
            };
            Ok(self.fd.set_clock(&clock)?)
        };
        restore().map_err(StateError::host("setting interrupt controllers and clock"))
    }

    fn set_memory(&self, flags: u32) -> io::Result<()> {
        let memory = &self.memory;
        for (slot, region) in (0..).zip(memory.iter()) {
            let host = memory
                .get_host_address(region.start_addr())
                .map_err(io::Error::other)?;
            let slot = kvm_userspace_memory_region {
                slot,
                flags,
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
