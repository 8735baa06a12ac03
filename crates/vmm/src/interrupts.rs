//! Interrupt lines into KVM: the GSI routing table has one owner, the [`Router`].
//!
//! GSIs 0 to 23 are the IOAPIC's pins; MSI lines are given GSIs behind them. Each line is an eventfd that
//! KVM turns into the interrupt without a trip through this process.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KvmIrqRouting, kvm_irq_routing_entry,
    kvm_irq_routing_irqchip, kvm_irq_routing_msi,
};
use kvm_ioctls::VmFd;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::pci::msix::{MsiLine, MsiMessage, MsiRouter};

const IOAPIC_PINS: u32 = 24;
/// KVM's table ends here (`KVM_MAX_IRQ_ROUTES`).
const GSI_LIMIT: u32 = 4096;

/// Makes interrupt lines.
pub struct Router {
    vm: Arc<VmFd>,
    messages: Arc<Mutex<BTreeMap<u32, MsiMessage>>>,
}

impl Router {
    pub(crate) fn new(vm: Arc<VmFd>) -> Self {
        Self {
            vm,
            messages: Arc::default(),
        }
    }

    /// An edge-triggered line into an IOAPIC pin: each write to the eventfd is one edge.
    ///
    /// # Errors
    /// KVM refused the irqfd, or the process is out of descriptors.
    pub fn pin(&self, gsi: u32) -> io::Result<EventFd> {
        let event = EventFd::new(EFD_NONBLOCK)?;
        self.vm.register_irqfd(&event, gsi)?;
        Ok(event)
    }
}

impl MsiRouter for Router {
    fn connect(&self, message: MsiMessage) -> io::Result<Box<dyn MsiLine>> {
        let event = EventFd::new(EFD_NONBLOCK)?;
        let mut messages = lock(&self.messages);
        let gsi = (IOAPIC_PINS..GSI_LIMIT)
            .find(|gsi| !messages.contains_key(gsi))
            .ok_or_else(|| io::Error::other("all interrupt routes are taken"))?;
        messages.insert(gsi, message);
        let connected = install(&self.vm, &messages)
            .and_then(|()| self.vm.register_irqfd(&event, gsi).map_err(Into::into));
        if let Err(error) = connected {
            messages.remove(&gsi);
            return Err(error);
        }
        Ok(Box::new(Line {
            vm: Arc::clone(&self.vm),
            messages: Arc::clone(&self.messages),
            gsi,
            event,
        }))
    }
}

struct Line {
    vm: Arc<VmFd>,
    messages: Arc<Mutex<BTreeMap<u32, MsiMessage>>>,
    gsi: u32,
    event: EventFd,
}

impl MsiLine for Line {
    fn set_message(&self, message: MsiMessage) -> io::Result<()> {
        let mut messages = lock(&self.messages);
        messages.insert(self.gsi, message);
        install(&self.vm, &messages)
    }

    fn signal(&self) -> io::Result<()> {
        self.event.write(1)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // The route may stay in KVM's table until its next change: without an irqfd nothing uses it.
        let _ = self.vm.unregister_irqfd(&self.event, self.gsi);
        lock(&self.messages).remove(&self.gsi);
    }
}

/// KVM takes the table as a whole, so the IOAPIC's pins are in it too.
fn install(vm: &VmFd, messages: &BTreeMap<u32, MsiMessage>) -> io::Result<()> {
    let pins = (0..IOAPIC_PINS).map(|pin| {
        let mut entry = kvm_irq_routing_entry {
            gsi: pin,
            type_: KVM_IRQ_ROUTING_IRQCHIP,
            ..Default::default()
        };
        entry.u.irqchip = kvm_irq_routing_irqchip {
            irqchip: KVM_IRQCHIP_IOAPIC,
            pin,
        };
        entry
    });
    let messages = messages.iter().map(|(&gsi, message)| {
        let mut entry = kvm_irq_routing_entry {
            gsi,
            type_: KVM_IRQ_ROUTING_MSI,
            ..Default::default()
        };
        entry.u.msi = kvm_irq_routing_msi {
            address_lo: message.address as u32,
            address_hi: (message.address >> 32) as u32,
            data: message.data,
            ..Default::default()
        };
        entry
    });
    let entries: Vec<_> = pins.chain(messages).collect();
    let table = KvmIrqRouting::from_entries(&entries)
        .map_err(|_| io::Error::other("the interrupt routing table is full"))?;
    Ok(vm.set_gsi_routing(&table)?)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
