//! The PCI slots of one boot: virtio functions in them, which come and go while the guest runs.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use crate::memory::GuestMemory;
use crate::notices::Notices;
use crate::pci::hotplug::HotPlug;
use crate::pci::msix::MsiRouter;
use crate::pci::root::PciRoot;
use crate::snapshot::{Saved, StateError};
use crate::virtio::net::Unplugged;
use crate::virtio::pci::{ExchangeError, SavedDevice, VirtioPci};
use crate::virtio::{DeviceType, VirtioDevice};

pub struct Slots {
    pub(super) root: Arc<PciRoot>,
    pub(super) hotplug: Arc<HotPlug>,
    msi: Arc<dyn MsiRouter>,
    memory: GuestMemory,
    /// Also of slots that the guest has emptied, until [`Self::remove`].
    functions: BTreeMap<u8, Arc<VirtioPci>>,
    /// Those in which the guest of a snapshot still has another device than the machine.
    stand_ins: BTreeSet<u8>,
}

impl Slots {
    /// All empty; `interrupt` tells the guest to look at them.
    pub(super) fn new(
        root: PciRoot,
        msi: Arc<dyn MsiRouter>,
        memory: GuestMemory,
        notices: Arc<Notices>,
        interrupt: EventFd,
    ) -> Self {
        let root = Arc::new(root);
        Self {
            hotplug: Arc::new(HotPlug::new(Arc::clone(&root), notices, interrupt)),
            root,
            msi,
            memory,
            functions: BTreeMap::new(),
            stand_ins: BTreeSet::new(),
        }
    }

    /// Puts a device into a slot, for the guest to find when it boots.
    pub(super) fn insert(&mut self, slot: u8, device: Box<dyn VirtioDevice>) -> io::Result<()> {
        let function = VirtioPci::new(device, self.memory.clone(), Arc::clone(&self.msi))?;
        self.root.insert(slot, Arc::clone(&function) as _)?;
        self.functions.insert(slot, function);
        Ok(())
    }

    /// Puts a device into a slot in which a snapshot has the function `saved`: the device itself, or one that stands
    /// in for it until the guest has let go of what it knows.
    pub(super) fn insert_restored(
        &mut self,
        slot: u8,
        device: Box<dyn VirtioDevice>,
        saved: &Saved,
    ) -> Result<(), StateError> {
        let failed = StateError::host("adding a PCI function");
        if device.device_type() == DeviceType::Net
            && let Some(unplugged) = Unplugged::instead_of(&*device, &SavedDevice::read(saved)?)?
        {
            self.stand_ins.insert(slot);
            return self.insert(slot, Box::new(unplugged)).map_err(failed);
        }
        self.insert(slot, device).map_err(failed)
    }

    /// Asks the guest to let go of all that stands in, unless the snapshot's machine has asked already: asked twice,
    /// it would let go of what comes then too.
    pub(crate) fn ask_for_stand_ins(&self) -> io::Result<()> {
        let unasked = |slot: &&u8| !self.hotplug.is_asked(**slot);
        let mut slots = self.stand_ins.iter().filter(unasked);
        slots.try_for_each(|&slot| self.hotplug.ask(slot))
    }

    /// Whether the guest still has what a snapshot has in a slot, instead of the machine's device.
    #[must_use]
    pub fn is_stand_in(&self, slot: u8) -> bool {
        self.stand_ins.contains(&slot)
    }

    /// Puts a device into a slot of the running machine and tells the guest.
    ///
    /// # Errors
    /// No descriptor is left, or the slot is taken. Nothing is attached then.
    pub fn attach(&mut self, slot: u8, device: Box<dyn VirtioDevice>) -> io::Result<()> {
        self.insert(slot, device)?;
        let announced = self.hotplug.announce(slot);
        if announced.is_err() {
            self.remove(slot);
        }
        announced
    }

    /// Puts another device in the place of a slot's, in a paused machine: its driver goes on with it.
    ///
    /// # Errors
    /// The driver cannot go on with it. The old one stays.
    pub fn exchange(&self, slot: u8, device: Box<dyn VirtioDevice>) -> Result<(), ExchangeError> {
        match self.functions.get(&slot) {
            Some(function) => function.exchange_device(device),
            None => Ok(()),
        }
    }

    /// Asks the guest to let a slot's device go; [`Notice::Ejected`](crate::notices::Notice::Ejected) comes when
    /// it has done so.
    ///
    /// # Errors
    /// The interrupt's descriptor failed.
    pub fn ask_to_eject(&self, slot: u8) -> io::Result<()> {
        self.hotplug.ask(slot)
    }

    /// Whether a slot's device is there for the guest.
    #[must_use]
    pub fn is_taken(&self, slot: u8) -> bool {
        self.root.is_taken(slot)
    }

    /// Whether a driver works with a slot's device.
    #[must_use]
    pub fn is_driven(&self, slot: u8) -> bool {
        self.functions
            .get(&slot)
            .is_some_and(|function| function.is_driven())
    }

    /// Takes a slot's device out, whether the guest has let it go or not. Its workers have stopped then.
    pub fn remove(&mut self, slot: u8) {
        self.hotplug.forget(slot);
        self.root.remove(slot);
        self.functions.remove(&slot);
        self.stand_ins.remove(&slot);
    }

    /// Tells the driver of a slot's device that its configuration space has changed.
    pub fn config_changed(&self, slot: u8) {
        if let Some(function) = self.functions.get(&slot) {
            function.config_changed();
        }
    }
}
