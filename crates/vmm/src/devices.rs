//! The devices of a machine and their PCI slots, over all of its boots: who is attached stays so when the guest
//! resets, in the same slot.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use hearth_block::Disk;

use crate::limits::{Limiter, RateLimit};
use crate::metrics::{self, Registry};
use crate::notices::Notices;
use crate::pci::root::{FIRST_SLOT, SLOTS};
use crate::snapshot::SavedSlot;
use crate::virtio::VirtioDevice;
use crate::virtio::balloon::{self, Balloon};
use crate::virtio::block::{Block, Cache, Gone};
use crate::virtio::net::{Net, NetConfig, NetLimits};
use crate::virtio::rng::Rng;
use crate::virtio::vsock::Vsock;

/// Bytes of a device's id.
const ID_LIMIT: usize = 64;

/// What a device is made of, anew for each boot.
pub enum Backend {
    Disk(DiskPlan),
    Nic(NicPlan),
    Rng(Arc<Limiter>),
    Balloon(Arc<balloon::Handle>),
    Vsock(VsockPlan),
}

pub struct DiskPlan {
    pub disk: Arc<dyn Disk>,
    pub limiter: Arc<Limiter>,
    pub serial: String,
    pub read_only: bool,
    pub cache: Cache,
}

pub struct NicPlan {
    /// One for each queue pair.
    pub taps: Vec<File>,
    pub config: NetConfig,
    pub limits: NetLimits,
}

pub struct VsockPlan {
    pub guest_cid: u32,
    pub listener: UnixListener,
    /// Of the host's sockets, relative to the working directory or not.
    pub prefix: PathBuf,
}

/// A device in its slot.
pub struct Entry {
    /// What clients call it: a volume's id, an interface's id.
    pub id: String,
    pub backend: Backend,
    /// The machine cannot be without it.
    pub fixed: bool,
    /// The guest was asked to let it go.
    pub leaving: bool,
    /// It stands where a disk was taken away.
    gone: bool,
    /// They go on over boots, and end when it is detached.
    counters: OnceLock<Arc<metrics::Device>>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    #[error("all {} slots of the machine are taken: detach a device first", SLOTS - FIRST_SLOT)]
    Full,
    #[error("a device {0:?} is attached already")]
    Taken(String),
    #[error("no device {0:?} is attached")]
    Unknown(String),
    #[error("device {0:?} cannot be detached: the machine needs it")]
    Fixed(String),
    #[error("the snapshot has other devices: {saved}")]
    Arrangement { saved: String },
    #[error("device {0:?} has no such rate limit")]
    Limit(String),
    #[error("device {0:?} is no NIC")]
    NoNic(String),
    #[error("device {device:?} has {queues} queues, and {taps} TAP queues came")]
    Queues {
        device: String,
        queues: usize,
        taps: usize,
    },
    #[error("{0:?} is no device's id: it has 1 to {ID_LIMIT} bytes")]
    Id(String),
}

/// What is in which slot.
#[derive(Default)]
pub struct Devices {
    slots: BTreeMap<u8, Entry>,
}

impl Devices {
    /// Gives a device the first free slot.
    ///
    /// # Errors
    /// No slot is free, or the id is another device's, or none.
    pub fn add(&mut self, id: &str, backend: Backend) -> Result<u8, DeviceError> {
        let slot = self.free_slot(id)?;
        let entry = Entry {
            id: id.to_owned(),
            backend,
            fixed: false,
            leaving: false,
            gone: false,
            counters: OnceLock::new(),
        };
        self.slots.insert(slot, entry);
        Ok(slot)
    }

    /// The slot that a device of this id would get.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn free_slot(&self, id: &str) -> Result<u8, DeviceError> {
        if id.is_empty() || id.len() > ID_LIMIT {
            return Err(DeviceError::Id(id.chars().take(ID_LIMIT).collect()));
        }
        if self.find(id).is_some() {
            return Err(DeviceError::Taken(id.to_owned()));
        }
        let mut slots = FIRST_SLOT..SLOTS;
        slots
            .find(|slot| !self.slots.contains_key(slot))
            .ok_or(DeviceError::Full)
    }

    /// A device that the machine cannot be without: it is not detached.
    pub fn fix(&mut self, slot: u8) {
        if let Some(entry) = self.slots.get_mut(&slot) {
            entry.fixed = true;
        }
    }

    /// The device of an id, and its slot.
    ///
    /// # Errors
    /// There is none.
    pub fn get(&self, id: &str) -> Result<(u8, &Entry), DeviceError> {
        self.find(id).ok_or_else(|| DeviceError::Unknown(id.to_owned()))
    }

    /// Notes that a device is to leave, and says from which slot.
    ///
    /// # Errors
    /// There is no such device, or it has to stay.
    pub fn ask_to_leave(&mut self, id: &str) -> Result<u8, DeviceError> {
        let slot = self.get(id)?.0;
        match self.slots.get_mut(&slot) {
            Some(entry) if !entry.fixed => {
                entry.leaving = true;
                Ok(slot)
            }
            _ => Err(DeviceError::Fixed(id.to_owned())),
        }
    }

    /// Puts a disk that fails into the place of a slot's disk, and says what was there: its id and its backend. What is left is
    /// no client's any more, and is to leave. `None`: there is no disk.
    pub fn take_away(&mut self, slot: u8) -> Option<(String, Backend)> {
        let entry = self.slots.get_mut(&slot)?;
        let Backend::Disk(plan) = &entry.backend else {
            return None;
        };
        let gone = DiskPlan {
            disk: Arc::new(Gone::instead_of(&*plan.disk)),
            limiter: Limiter::new(&RateLimit::default()),
            serial: plan.serial.clone(),
            read_only: plan.read_only,
            cache: plan.cache,
        };
        (entry.leaving, entry.gone) = (true, true);
        entry.counters = OnceLock::new();
        let id = std::mem::replace(&mut entry.id, format!("gone-{slot}"));
        Some((id, std::mem::replace(&mut entry.backend, Backend::Disk(gone))))
    }

    /// Empties a slot.
    pub fn remove(&mut self, slot: u8) -> Option<Entry> {
        self.slots.remove(&slot)
    }

    /// What is in the slots, for [`Self::arranged_as`].
    #[must_use]
    pub fn arrangement(&self) -> Vec<SavedSlot> {
        let saved = |(slot, entry): (u8, &Entry)| SavedSlot {
            slot,
            kind: entry.backend.kind().to_owned(),
            leaving: entry.leaving,
        };
        self.iter().map(saved).collect()
    }

    /// The same devices in the slots that a snapshot has them in: the first disk where its first disk was, and so
    /// on for each kind. A device whose like was leaving is leaving too.
    ///
    /// # Errors
    /// They are of other kinds or numbers than the snapshot's.
    pub fn arranged_as(self, arrangement: &[SavedSlot]) -> Result<Self, DeviceError> {
        let other = || DeviceError::Arrangement {
            saved: arrangement
                .iter()
                .map(|saved| saved.kind.as_str())
                .collect::<Vec<_>>()
                .join(" "),
        };
        let mut left: Vec<Entry> = self.slots.into_values().collect();
        let mut slots = BTreeMap::new();
        for saved in arrangement {
            let next = left.iter().position(|entry| entry.backend.kind() == saved.kind);
            let mut entry = left.remove(next.ok_or_else(other)?);
            entry.leaving = saved.leaving;
            if !(FIRST_SLOT..SLOTS).contains(&saved.slot) || slots.insert(saved.slot, entry).is_some() {
                return Err(other());
            }
        }
        if !left.is_empty() {
            return Err(other());
        }
        Ok(Self { slots })
    }

    /// The device in a slot.
    #[must_use]
    pub fn in_slot(&self, slot: u8) -> Option<&Entry> {
        self.slots.get(&slot)
    }

    /// The slots that the guest has emptied, as `taken` says, and whether their devices were to leave.
    #[must_use]
    pub fn emptied(&self, taken: impl Fn(u8) -> bool) -> Vec<(u8, bool)> {
        let empty = self.iter().filter(|(slot, _)| !taken(*slot));
        empty.map(|(slot, entry)| (slot, entry.leaving)).collect()
    }

    /// The slots of devices that are to leave.
    #[must_use]
    pub fn leaving(&self) -> Vec<u8> {
        let leaving = self.iter().filter(|(_, entry)| entry.leaving);
        leaving.map(|(slot, _)| slot).collect()
    }

    /// Sets the rate limit of a disk or of the entropy device.
    ///
    /// # Errors
    /// There is no such device, or it is another kind.
    pub fn set_rate_limit(&self, id: &str, limit: &RateLimit) -> Result<(), DeviceError> {
        match &self.get(id)?.1.backend {
            Backend::Disk(plan) => plan.limiter.set(limit),
            Backend::Rng(limiter) => limiter.set(limit),
            _ => return Err(DeviceError::Limit(id.to_owned())),
        }
        Ok(())
    }

    /// Sets the rate limits of a NIC.
    ///
    /// # Errors
    /// There is no such device, or it is another kind.
    pub fn set_nic_rate_limits(
        &self,
        id: &str,
        receive: &RateLimit,
        transmit: &RateLimit,
    ) -> Result<(), DeviceError> {
        let Backend::Nic(plan) = &self.get(id)?.1.backend else {
            return Err(DeviceError::Limit(id.to_owned()));
        };
        plan.limits.receive.set(receive);
        plan.limits.transmit.set(transmit);
        Ok(())
    }

    /// Gives a NIC other TAP queues for the devices that are made of it from now on, and returns those that it had.
    ///
    /// # Errors
    /// There is no such NIC, or it has another number of queues.
    pub fn exchange_taps(&mut self, id: &str, taps: Vec<File>) -> Result<Vec<File>, DeviceError> {
        let slot = self.get(id)?.0;
        let Some(Entry {
            backend: Backend::Nic(plan),
            ..
        }) = self.slots.get_mut(&slot)
        else {
            return Err(DeviceError::NoNic(id.to_owned()));
        };
        if taps.len() != plan.taps.len() {
            return Err(DeviceError::Queues {
                device: id.to_owned(),
                queues: plan.taps.len(),
                taps: taps.len(),
            });
        }
        Ok(std::mem::replace(&mut plan.taps, taps))
    }

    /// The guest's first disk.
    #[must_use]
    pub fn first_disk(&self) -> Option<(u8, &DiskPlan)> {
        self.iter().find_map(|(slot, entry)| match &entry.backend {
            Backend::Disk(plan) => Some((slot, plan)),
            _ => None,
        })
    }

    #[must_use]
    pub fn balloon(&self) -> Option<&Arc<balloon::Handle>> {
        self.iter().find_map(|(_, entry)| match &entry.backend {
            Backend::Balloon(handle) => Some(handle),
            _ => None,
        })
    }

    /// In the order of slots.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &Entry)> {
        self.slots.iter().map(|(&slot, entry)| (slot, entry))
    }

    fn find(&self, id: &str) -> Option<(u8, &Entry)> {
        self.iter().find(|(_, entry)| entry.id == id)
    }
}

impl DiskPlan {
    /// The last flush of a disk; `id` is what clients call it.
    pub fn flush(&self, id: &str) {
        if let Err(error) = self.disk.flush() {
            tracing::error!(%error, disk = id, "last flush of a disk");
        }
    }
}

impl Entry {
    /// The last flush, if it is a disk of the machine's.
    pub fn flush(&self) {
        match &self.backend {
            Backend::Disk(plan) if !self.gone => plan.flush(&self.id),
            _ => {}
        }
    }

    /// Makes the device for a boot of a machine with so many vCPUs; it counts in `metrics` by its id.
    ///
    /// # Errors
    /// Its TAP is none, or no descriptor is left.
    pub fn build(
        &self,
        vcpus: u8,
        metrics: &Registry,
        notices: &Arc<Notices>,
    ) -> io::Result<Box<dyn VirtioDevice>> {
        let counters = || {
            let new = || metrics.device(self.backend.kind(), &self.id);
            Arc::clone(self.counters.get_or_init(new))
        };
        Ok(match &self.backend {
            Backend::Disk(plan) => {
                let block = Block::new(Arc::clone(&plan.disk), &plan.serial, plan.read_only)
                    .cached(plan.cache)
                    .queues(vcpus.into())
                    .limited_by(Arc::clone(&plan.limiter));
                Box::new(block.counted_in(counters()))
            }
            Backend::Nic(plan) => {
                let taps = plan.taps.iter().map(File::try_clone).collect::<io::Result<_>>()?;
                let net = Net::new(taps, plan.config)?.limited_by(plan.limits.clone());
                Box::new(net.counted_in(counters()))
            }
            Backend::Rng(limiter) => {
                Box::new(Rng::new().limited_by(Arc::clone(limiter)).counted_in(counters()))
            }
            Backend::Balloon(handle) => {
                let balloon = Balloon::new(Arc::clone(handle), Arc::clone(notices));
                Box::new(balloon.counted_in(counters()))
            }
            Backend::Vsock(plan) => {
                let vsock = Vsock::new(plan.guest_cid, plan.listener.try_clone()?, plan.prefix.clone())?;
                Box::new(vsock.counted_in(counters()))
            }
        })
    }
}

impl Backend {
    /// As metrics call it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Disk(_) => "block",
            Self::Nic(_) => "net",
            Self::Rng(_) => "rng",
            Self::Balloon(_) => "balloon",
            Self::Vsock(_) => "vsock",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend() -> Backend {
        Backend::Rng(Limiter::new(&Default::default()))
    }

    #[test]
    fn slots_are_given_in_order_and_used_again() {
        let mut devices = Devices::default();
        for n in FIRST_SLOT..SLOTS {
            assert_eq!(devices.add(&format!("vol-{n}"), backend()), Ok(n));
        }
        assert_eq!(devices.add("vol-more", backend()), Err(DeviceError::Full));
        assert!(DeviceError::Full.to_string().contains("31 slots"));
        assert_eq!(devices.remove(7).unwrap().id, "vol-7");
        assert_eq!(devices.add("vol-more", backend()), Ok(7));
    }

    #[test]
    fn ids_name_one_device() {
        let mut devices = Devices::default();
        let slot = devices.add("vol-1", backend()).unwrap();
        assert_eq!(
            devices.add("vol-1", backend()),
            Err(DeviceError::Taken("vol-1".into()))
        );
        assert!(matches!(devices.add("", backend()), Err(DeviceError::Id(_))));
        assert!(matches!(
            devices.add(&"x".repeat(65), backend()),
            Err(DeviceError::Id(_))
        ));
        assert_eq!(
            devices.ask_to_leave("vol-2"),
            Err(DeviceError::Unknown("vol-2".into()))
        );
        assert_eq!(devices.ask_to_leave("vol-1"), Ok(slot));
        assert_eq!(devices.leaving(), [slot]);
    }

    #[test]
    fn a_snapshots_slots_are_taken_by_the_same_kinds_in_order() {
        let devices = || {
            let mut devices = Devices::default();
            devices.add("rng", backend()).unwrap();
            devices.add("rng2", backend()).unwrap();
            devices
        };
        let saved = |slot: u8, kind: &str, leaving| SavedSlot {
            slot,
            kind: kind.to_owned(),
            leaving,
        };
        let kind = |slot: u8| saved(slot, "rng", false);
        let arrangement = [kind(4), saved(9, "rng", true)];
        let arranged = devices().arranged_as(&arrangement).unwrap();
        assert_eq!(arranged.leaving(), [9]);
        let ids: Vec<_> = arranged
            .iter()
            .map(|(slot, entry)| (slot, entry.id.as_str()))
            .collect();
        assert_eq!(ids, [(4, "rng"), (9, "rng2")]);
        assert_eq!(arranged.arrangement(), arrangement);
        let nonsense = [
            vec![kind(4)],
            vec![kind(4), kind(4)],
            vec![kind(0), kind(4)],
            vec![kind(4), kind(32)],
            vec![kind(4), kind(5), kind(6)],
            vec![kind(4), saved(5, "block", false)],
        ];
        for arrangement in nonsense {
            assert!(devices().arranged_as(&arrangement).is_err(), "{arrangement:?}");
        }
    }

    #[test]
    fn rate_limits_are_those_of_a_kind() {
        let mut devices = Devices::default();
        devices.add("rng", backend()).unwrap();
        let limit = RateLimit::default();
        assert_eq!(devices.set_rate_limit("rng", &limit), Ok(()));
        assert_eq!(
            devices.set_nic_rate_limits("rng", &limit, &limit),
            Err(DeviceError::Limit("rng".into()))
        );
        assert_eq!(
            devices.set_rate_limit("vol-1", &limit),
            Err(DeviceError::Unknown("vol-1".into()))
        );
    }

    #[test]
    fn fixed_devices_stay() {
        let mut devices = Devices::default();
        let slot = devices.add("vol-1", backend()).unwrap();
        devices.fix(slot);
        assert_eq!(
            devices.ask_to_leave("vol-1"),
            Err(DeviceError::Fixed("vol-1".into()))
        );
        assert!(devices.leaving().is_empty());
    }
}
