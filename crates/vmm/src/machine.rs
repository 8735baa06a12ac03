//! One boot of a virtual machine: built from a [`Plan`], run, torn down. A reset is the next one.

mod slots;

use std::io;
use std::sync::Arc;

use kvm_ioctls::{Kvm, VcpuFd};

use crate::acpi;
use crate::bases::Bases;
use crate::boot::{self, BootError};
use crate::bus::Bus;
use crate::console::Line;
use crate::cpu::{self, CpuError, CpuModel, CpuSpec};
use crate::devices::Devices;
use crate::legacy::firmware::FirmwarePorts;
use crate::legacy::serial::Serial;
use crate::memory::userfault::PageServer;
use crate::memory::{GuestMemory, HugePages, Layout, MIB, advise_huge_pages};
use crate::metrics::Registry;
use crate::notices::Notices;
use crate::pci::root::{HostBridge, PciRoot};
use crate::smbios;
use crate::snapshot::{Restore, Saved, SnapshotError, Tracking};
use crate::vcpu::{Resting, Stopping, VcpuState, VcpuThread};
use crate::vm::Vm;
use crate::vmgenid::{self, VmGenId};
use vmm_sys_util::eventfd::EventFd;

pub use slots::Slots;

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("{doing}")]
    Host {
        doing: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("making the processors")]
    Cpu(#[from] CpuError),
    #[error("booting")]
    Boot(#[from] BootError),
    #[error("setting the generation id")]
    Generation(#[from] vmgenid::RenewError),
    #[error("restoring the snapshot")]
    Snapshot(#[from] SnapshotError),
    #[error("writing firmware tables into guest memory")]
    Firmware(#[from] vm_memory::GuestMemoryError),
}

/// The boot has ended while something was asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the machine is ending")]
pub struct Ended;

/// Everything that boots have in common: what was opened once, and the machine's shape.
pub struct Plan {
    pub kvm: Kvm,
    pub instance_id: String,
    pub uuid: String,
    pub vcpus: u8,
    /// As [`crate::spec::VmSpec::cpus`].
    pub cpus: Vec<u16>,
    pub cpu: CpuSpec,
    pub memory_mib: u64,
    pub huge_pages: HugePages,
    pub source: boot::Source,
    /// What the first boot goes on from, if it is none.
    pub restore: Option<Restore>,
    pub devices: Devices,
    /// Whether the guest is told that devices may come and go.
    pub hotplug: bool,
    /// Where a disk that is attached has the rest of its base from.
    pub bases: Bases,
    pub metrics: Registry,
}

/// A machine between power-on and its end.
pub struct Machine {
    pub serial: Arc<Serial>,
    pub notices: Arc<Notices>,
    /// To be renewed when this machine's past is another's too.
    pub generation: VmGenId,
    pub slots: Slots,
    power_button: EventFd,
    pub(crate) bus: Arc<Bus>,
    /// Whether firmware booted it, and not a kernel that was entered directly.
    pub by_firmware: bool,
    threads: Vec<VcpuThread>,
    /// The vCPUs of a paused machine.
    pub(crate) paused: Option<Vec<Resting>>,
    pub(crate) tracking: Option<Tracking>,
    /// Who brings the memory's pages; if it hangs up, the machine cannot go on, nor be stopped in order.
    pub(crate) page_server: Option<PageServer>,
    pub(crate) vm: Vm,
}

/// Where a machine comes from.
#[derive(Clone, Copy)]
enum Origin<'a> {
    Boot,
    Snapshot(&'a Restore),
}

impl<'a> Origin<'a> {
    /// What firmware's devices were.
    fn firmware(self) -> Option<&'a Saved> {
        match self {
            Self::Boot => None,
            Self::Snapshot(restore) => restore.snapshot.devices.firmware.as_ref(),
        }
    }

    /// What was in a slot.
    fn function(self, slot: u8) -> Option<&'a Saved> {
        match self {
            Self::Boot => None,
            Self::Snapshot(restore) => restore.snapshot.devices.function(slot),
        }
    }
}

impl Machine {
    /// Builds the machine, whose serial port leads to `line`, and starts its vCPUs.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn start(plan: &Plan, line: &Line) -> Result<Self, BuildError> {
        let memory = plan.layout().map();
        let memory = memory.map_err(host("mapping guest memory"))?;
        Self::build(plan, line, memory, Origin::Boot)
    }

    /// Builds the machine as it was when the snapshot was made, and lets it go on: with the plan's disks, NICs and
    /// console, and with a new generation id.
    ///
    /// # Errors
    /// See [`BuildError`]; the snapshot may not fit the plan.
    pub fn restore(plan: &Plan, line: &Line, restore: &Restore) -> Result<Self, BuildError> {
        let snapshot = &restore.snapshot;
        snapshot.check(plan.vcpus, plan.memory_mib, &plan.cpu)?;
        cpu::check_saved(&plan.kvm, snapshot.vcpus.iter().map(VcpuState::cpuid))?;
        let (memory, page_server) = restore.map(&plan.layout())?;
        let mut machine = Self::build(plan, line, memory, Origin::Snapshot(restore))?;
        machine.page_server = page_server;
        Ok(machine)
    }

    fn build(plan: &Plan, line: &Line, memory: GuestMemory, origin: Origin<'_>) -> Result<Self, BuildError> {
        let notices = Arc::new(Notices::new().map_err(host("making an event descriptor"))?);
        let layout = plan.layout();
        let vm = Vm::new(&plan.kvm, &memory).map_err(host("making a KVM machine"))?;
        let (vcpus, by_firmware) = match origin {
            Origin::Boot => {
                let vcpus = make_vcpus(plan, &vm)?;
                let entry = fill_memory(plan, &layout, &memory)?;
                if let Some(first) = vcpus.first() {
                    cpu::enter(first, &entry).map_err(host("setting the boot processor up"))?;
                }
                (vcpus, matches!(entry, boot::Entry::Firmware { .. }))
            }
            Origin::Snapshot(restore) => {
                let vcpus = (0..plan.vcpus).map(|id| Ok(vm.fd.create_vcpu(id.into())?));
                let vcpus = vcpus.collect::<io::Result<_>>();
                let vcpus = vcpus.map_err(host("making vCPUs"))?;
                (vcpus, restore.snapshot.devices.firmware.is_some())
            }
        };

        let interrupt = vm
            .router
            .pin(acpi::SERIAL_GSI)
            .map_err(host("wiring the serial port"))?;
        let serial = Arc::new(match origin {
            Origin::Boot => Serial::new(interrupt, line),
            Origin::Snapshot(restore) => restore.serial(interrupt, line)?,
        });
        let power_button = vm
            .router
            .pin(acpi::POWER_BUTTON_GSI)
            .map_err(host("wiring the power button"))?;
        let generation = vm
            .router
            .pin(acpi::GENERATION_GSI)
            .map_err(host("wiring the generation id"))?;
        let generation = VmGenId::new(memory.clone(), generation);

        let hotplug = vm
            .router
            .pin(acpi::HOTPLUG_GSI)
            .map_err(host("wiring hot-plug"))?;
        let bridge = if by_firmware {
            HostBridge::FIRMWARE
        } else {
            HostBridge::DIRECT
        };
        let mut slots = Slots::new(
            PciRoot::new(Arc::clone(&vm.fd) as _, layout.pci_window_64(), bridge),
            Arc::clone(&vm.router) as _,
            memory.clone(),
            Arc::clone(&notices),
            hotplug,
        );
        for (slot, entry) in plan.devices.iter() {
            let device = entry
                .build(plan.vcpus, &plan.metrics, &notices)
                .map_err(host("making devices"))?;
            match origin.function(slot) {
                Some(saved) => slots
                    .insert_restored(slot, device, saved)
                    .map_err(SnapshotError::State)?,
                None => slots
                    .insert(slot, device)
                    .map_err(host("adding a PCI function"))?,
            }
        }
        let firmware = by_firmware.then(|| firmware_ports(&layout, &slots, &notices, origin));
        let bus = Arc::new(Bus::new(
            Arc::clone(&serial),
            Arc::clone(&slots.root),
            Arc::clone(&slots.hotplug),
            firmware.transpose()?,
            Arc::clone(&notices),
        ));

        let mut machine = Self {
            serial,
            notices,
            generation,
            slots,
            power_button,
            bus,
            by_firmware,
            threads: Vec::new(),
            paused: None,
            tracking: None,
            page_server: None,
            vm,
        };
        if let Origin::Snapshot(restore) = origin {
            machine.take_over(plan, &vcpus, restore)?;
        }
        for (index, vcpu) in (0..).zip(vcpus) {
            let (bus, notices) = (Arc::clone(&machine.bus), Arc::clone(&machine.notices));
            let cpu = plan.cpus.iter().copied().cycle().nth(usize::from(index));
            match VcpuThread::start(index, cpu, vcpu, bus, notices, plan.metrics.vcpu(index)) {
                Ok(thread) => machine.threads.push(thread),
                Err(source) => {
                    machine.stop();
                    return Err(host("starting a vCPU's thread")(source));
                }
            }
        }
        Ok(machine)
    }

    /// Presses the ACPI power button; it is up to the guest what it does then.
    ///
    /// # Errors
    /// The interrupt's descriptor failed.
    pub fn press_power_button(&self) -> io::Result<()> {
        self.power_button.write(1)
    }

    /// Stops the vCPUs, then the devices' workers, each with its last request ended. What the guest sees of it is
    /// that time has passed. A paused machine stays as it is.
    ///
    /// # Errors
    /// A vCPU's thread has ended: so does the boot, and its notice says why.
    pub fn pause(&mut self) -> Result<(), Ended> {
        if self.paused.is_none() {
            let stopping: Vec<_> = self.threads.iter().map(VcpuThread::rest).collect();
            let resting: Option<Vec<_>> = stopping.into_iter().map(Stopping::wait).collect();
            self.paused = Some(resting.ok_or(Ended)?);
            self.bus.pause();
        }
        Ok(())
    }

    /// Lets devices and vCPUs go on, if they are paused.
    pub fn resume(&mut self) {
        if let Some(vcpus) = self.paused.take() {
            self.bus.resume();
            for resting in vcpus {
                // The guest's watchdog shall not bark at the time that has passed. A guest without a kvmclock has
                // no use for it, and KVM refuses.
                let _ = resting.vcpu.kvmclock_ctrl();
                resting.resume();
            }
        }
    }

    /// Stops vCPUs, then devices. An [`Ending`](crate::notices::Ending) that nobody has posted yet becomes
    /// `Stop`.
    pub fn stop(self) {
        self.notices.end(crate::notices::Ending::Stop);
        drop(self.paused);
        for thread in &self.threads {
            thread.kick();
        }
        for thread in self.threads {
            thread.join();
        }
        self.bus.reset();
    }
}

impl Plan {
    fn layout(&self) -> Layout {
        Layout::new(self.memory_mib * MIB)
    }
}

fn host(doing: &'static str) -> impl FnOnce(io::Error) -> BuildError {
    move |source| BuildError::Host { doing, source }
}

/// What is in RAM when the first processor starts: kernel and initrd, or the firmware; and the tables.
fn fill_memory(plan: &Plan, layout: &Layout, memory: &GuestMemory) -> Result<boot::Entry, BuildError> {
    let entry = boot::load(&plan.source, layout, memory)?;
    acpi::write(memory, layout, plan.vcpus, plan.hotplug)?;
    vmgenid::write(memory)?;
    smbios::write(memory, &plan.uuid, &plan.instance_id)?;
    if plan.huge_pages == HugePages::Transparent {
        // What is written above are a few pages here and there, and the first processor waits for them.
        for (start, len) in layout.ram() {
            advise_huge_pages(memory, start, len);
        }
    }
    Ok(entry)
}

/// The devices that only firmware uses, fresh or as the snapshot has them.
fn firmware_ports(
    layout: &Layout,
    slots: &Slots,
    notices: &Arc<Notices>,
    origin: Origin<'_>,
) -> Result<FirmwarePorts, BuildError> {
    let (root, notices) = (Arc::clone(&slots.root), Arc::clone(notices));
    match origin.firmware() {
        Some(saved) => {
            FirmwarePorts::restored(saved, root, notices).map_err(|error| SnapshotError::State(error).into())
        }
        None => Ok(FirmwarePorts::new(layout, root, notices)),
    }
}

fn make_vcpus(plan: &Plan, vm: &Vm) -> Result<Vec<VcpuFd>, BuildError> {
    let host = |doing| move |source| BuildError::Host { doing, source };
    let mut model = CpuModel::new(&plan.kvm, &plan.cpu, plan.vcpus)?;
    (0..plan.vcpus)
        .map(|id| {
            let vcpu = vm.fd.create_vcpu(u64::from(id));
            let vcpu = vcpu.map_err(|error| host("making a vCPU")(error.into()))?;
            model.apply(&vcpu, id)?;
            cpu::set_memory_type(&vcpu).map_err(host("setting the memory type"))?;
            Ok(vcpu)
        })
        .collect()
}
