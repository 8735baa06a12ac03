//! Volumes that move from one host to another.
//!
//! The old host stores the contents as a point in time that no user sees. When that is durable, one transaction makes the
//! volume the new host's, with what was stored as what it begins with, and raises its epoch. Only then the old host erases its
//! copy. A volume is therefore whole on one of the two hosts whoever is killed, and a host that comes back with an old copy is
//! told to erase it, and is given the volume no more before it has.

use hearth_api::InstanceState;
use serde::{Deserialize, Serialize};

use super::{Disk, Host, Incarnation, Instance, Known, Progress, Volume};
use crate::lifecycle;
use crate::state::{Concern, Index, Noun, State, Sum, Tx};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// `move-` and 17 hex digits. Hosts know the point in time, and what the volume begins with after it, by this.
    pub id: String,
    pub volume_id: String,
    /// The host where the volume lay.
    pub from: String,
    pub size_gib: u64,
    pub stage: Stage,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "kebab-case")]
pub enum Stage {
    /// The volume is the old host's, which stores it.
    Storing {
        to: String,
        /// Of what changed, how much is stored.
        percent: u32,
        /// When its host was last heard of it, in milliseconds since the epoch.
        progressed_at: i64,
    },
    /// The volume begins with what was stored, on whichever host it is now.
    Stored {
        disk: Disk,
        /// Of the volume when it left. The old host erases what it has of it, unless it has seen a later one.
        epoch: u64,
        /// The old host has not said that nothing is left of its copy.
        is_left: bool,
    },
}

impl Move {
    /// Of ids.
    pub const PREFIX: &str = "move-";
    /// By the host that is to do something for it.
    pub const BY_HOST: Index<Self> = Index::refers::<Host>("host", |m| {
        m.is_hosts().then(|| m.from.clone()).into_iter().collect()
    });
    pub const BY_VOLUME: Index<Self> = Index::new("volume", |m| vec![m.volume_id.clone()]);
    /// By its disk in the repository.
    pub const BY_DISK: Index<Self> = Index::new("disk", |m| {
        m.disk().map(|disk| disk.name.clone()).into_iter().collect()
    });
    /// Those that are being stored, each once, under [`Self::STORING`]; those that no host has to do anything for, under
    /// [`Self::SETTLED`].
    pub const BY_STAGE: Index<Self> = Index::new("stage", |m| match (&m.stage, m.is_hosts()) {
        (Stage::Storing { .. }, _) => vec![Self::STORING.to_owned()],
        (Stage::Stored { .. }, true) => Vec::new(),
        (Stage::Stored { .. }, false) => vec![Self::SETTLED.to_owned()],
    });
    pub const STORING: &str = "storing";
    pub const SETTLED: &str = "settled";
    /// Copies that a host has, or will have, beside the volumes that lie there, and their GiB.
    pub const ON_HOST: Sum<Self> = Sum {
        name: "host",
        part: |m| Some((m.room()?.to_owned(), [1, m.size_gib])),
    };

    fn new(volume: &Volume, from: String, to: &str, now: i64) -> Self {
        Self {
            id: format!("{}0{:016x}", Self::PREFIX, rand::random::<u64>()),
            volume_id: volume.id.clone(),
            from,
            size_gib: volume.spec.size_gib,
            stage: Stage::Storing {
                to: to.to_owned(),
                percent: 0,
                progressed_at: now,
            },
        }
    }

    pub fn is_storing(&self) -> bool {
        matches!(self.stage, Stage::Storing { .. })
    }

    /// Whether the old host may have a copy that is the volume no more.
    pub fn is_left(&self) -> bool {
        matches!(self.stage, Stage::Stored { is_left: true, .. })
    }

    fn is_hosts(&self) -> bool {
        self.is_storing() || self.is_left()
    }

    /// `None`: it is not stored yet.
    pub fn disk(&self) -> Option<&Disk> {
        match &self.stage {
            Stage::Storing { .. } => None,
            Stage::Stored { disk, .. } => Some(disk),
        }
    }
}

impl Noun for Move {
    const KIND: &'static str = "move";
    const INDEXES: &'static [Index<Self>] = &[Self::BY_HOST, Self::BY_VOLUME, Self::BY_DISK, Self::BY_STAGE];
    const SUMS: &'static [Sum<Self>] = &[Self::ON_HOST];

    fn id(&self) -> &str {
        &self.id
    }

    /// While it is stored, the new host's: it takes room there already. Then the old host's, until it has erased its copy.
    fn room(&self) -> Option<&str> {
        match &self.stage {
            Stage::Storing { to, .. } => Some(to),
            Stage::Stored { is_left, .. } => is_left.then_some(&self.from),
        }
    }

    fn concerns(&self, _: &State) -> Vec<Concern> {
        let host_id = self.from.clone();
        vec![
            Concern::Snapshot {
                host_id: host_id.clone(),
                snapshot_id: self.id.clone(),
            },
            Concern::Volume {
                host_id,
                volume_id: self.volume_id.clone(),
            },
        ]
    }
}

impl State {
    /// GiB that volumes take on a host, those included that are on their way, and disks of the instance store.
    pub fn gib_on(&self, host_id: &str) -> u64 {
        let [_, volumes] = self.sum(&Volume::ON_HOST, host_id);
        let [_, copies] = self.sum(&Move::ON_HOST, host_id);
        let [store, _] = self.sum(&Incarnation::STORE_ON_HOST, host_id);
        volumes + copies + store
    }

    /// What stores a volume that moves.
    pub fn storing(&self, volume_id: &str) -> Option<&Move> {
        self.by(&Move::BY_VOLUME, volume_id).find(|row| row.is_storing())
    }

    /// What a host has of a volume that it is to erase.
    pub fn old_copy(&self, volume_id: &str, host_id: &str) -> Option<&Move> {
        let mut moves = self.by(&Move::BY_VOLUME, volume_id);
        moves.find(|row| row.is_left() && row.from == host_id)
    }

    /// The hosts that have an old copy of a volume.
    pub fn old_copies<'s>(&'s self, volume_id: &str) -> impl Iterator<Item = &'s str> + use<'s> {
        let left = self.by(&Move::BY_VOLUME, volume_id).filter(|row| row.is_left());
        left.map(|row| row.from.as_str())
    }

    /// Whether an instance has a volume that does not lie on its host.
    pub fn is_away(&self, volume: &Volume) -> bool {
        let instance = volume
            .instance_id()
            .and_then(|id| self.of_anybody::<Instance>(id));
        instance.is_some_and(|row| volume.host_id.as_ref().is_some_and(|host| *host != row.host_id))
    }

    /// Whether an instance cannot start before its volumes have come. Its host has not been told of this run.
    pub fn awaits_volumes(&self, instance: &Instance) -> bool {
        let mut volumes = self.by(&Volume::BY_INSTANCE, &instance.id);
        instance.state == InstanceState::Pending && volumes.any(|volume| self.is_away(volume))
    }

    /// Whether volumes are on their way to an instance.
    pub fn has_moves(&self, instance: &Instance) -> bool {
        let mut volumes = self.by(&Volume::BY_INSTANCE, &instance.id);
        volumes.any(|volume| self.storing(&volume.id).is_some())
    }

    /// What a volume holds, where that is stored: its host is not needed for it. `None`: only its host knows.
    fn stored_as(&self, volume: &Volume) -> Option<Disk> {
        let Known::As(id) = &volume.known else {
            return None;
        };
        let base = self.base(id)?;
        // What it begins with lies under its own key.
        (base.encryption == volume.encryption.as_ref()).then(|| Disk {
            name: base.name.to_owned(),
            size: base.size,
            digest: base.digest.to_owned(),
        })
    }

    /// Whether a volume could be had without the host where it lies.
    pub fn is_stored(&self, volume: &Volume) -> bool {
        volume.host_id.is_none() || volume.known == Known::AsItBegan || self.stored_as(volume).is_some()
    }
}

impl Tx<'_> {
    /// Has a volume lie on a host, at once or when it has come. No instance runs with it; and the host has no old copy of it.
    pub fn relocate(&mut self, volume_id: &str, to: &str) {
        let Some(volume) = self.get::<Volume>(volume_id).cloned() else {
            return;
        };
        let Some(from) = volume.host_id.clone().filter(|from| from != to) else {
            self.update::<Volume>(volume_id, |row| row.host_id = Some(to.to_owned()));
            return;
        };
        // Nothing of it lies on its host.
        if volume.known == Known::AsItBegan {
            self.update::<Volume>(volume_id, |row| row.host_id = Some(to.to_owned()));
            self.event("volume.moved", volume_id);
            return;
        }
        let row = Move::new(&volume, from, to, self.now());
        let id = row.id.clone();
        self.put(row);
        self.event("volume.moving", volume_id);
        if let Some(disk) = self.stored_as(&volume) {
            self.complete_move(&id, disk);
        }
    }

    /// The old host is heard of.
    pub fn progress_move(&mut self, id: &str, so_far: u32) {
        let now = self.now();
        self.update::<Move>(id, |row| {
            if let Stage::Storing {
                percent,
                progressed_at,
                ..
            } = &mut row.stage
            {
                (*percent, *progressed_at) = (so_far, now);
            }
        });
    }

    /// The contents of a volume are durable: it is the new host's.
    pub fn complete_move(&mut self, id: &str, disk: Disk) {
        let Some(row) = self.get::<Move>(id).cloned() else {
            return;
        };
        let Stage::Storing { to, .. } = &row.stage else {
            return;
        };
        let (volume_id, to) = (row.volume_id.clone(), to.clone());
        self.depart(row, disk, Some(to));
        let instance = self
            .get::<Volume>(&volume_id)
            .and_then(|volume| volume.instance_id().map(str::to_owned));
        if let Some(instance) = instance {
            self.volumes_have_come(&instance);
        }
    }

    /// A volume of which all is stored lies on no host any more: its host was forgotten.
    pub fn abandon_host(&mut self, volume_id: &str) {
        let Some(volume) = self.get::<Volume>(volume_id).cloned() else {
            return;
        };
        match (volume.host_id.clone(), self.stored_as(&volume)) {
            (Some(from), Some(disk)) => {
                let row = Move::new(&volume, from, "", self.now());
                let id = row.id.clone();
                self.depart(row, disk, None);
                self.drop_copy(&id);
            }
            _ => {
                self.update::<Volume>(volume_id, |row| row.host_id = None);
            }
        }
    }

    /// The volume begins with the disk from now on, on another host or on none. The old one has a copy that is to go.
    fn depart(&mut self, row: Move, disk: Disk, to: Option<String>) {
        let (id, now) = (row.id.clone(), self.now());
        let Some(mut volume) = self.get::<Volume>(&row.volume_id).cloned() else {
            return;
        };
        volume.epoch += 1;
        let epoch = volume.epoch;
        if let Some(attachment) = &mut volume.attachment {
            attachment.epoch = epoch;
            if attachment.progress == Progress::Attaching {
                attachment.set_progress(Progress::Attaching, now);
            }
        }
        (volume.host_id, volume.moved) = (to, Some(id));
        (volume.is_made, volume.known) = (false, Known::AsItBegan);
        self.put(Move {
            stage: Stage::Stored {
                disk,
                epoch,
                is_left: true,
            },
            ..row
        });
        self.event("volume.moved", &volume.id);
        self.put(volume);
    }

    /// Has the volumes of an instance that is about to run come to its host, those that do not already.
    pub fn fetch_volumes(&mut self, instance_id: &str) {
        let Some(host) = self.get::<Instance>(instance_id).map(|row| row.host_id.clone()) else {
            return;
        };
        let volumes = self.by(&Volume::BY_INSTANCE, instance_id);
        let away = volumes.filter(|volume| self.is_away(volume) && self.storing(&volume.id).is_none());
        let ids: Vec<String> = away.map(|volume| volume.id.clone()).collect();
        ids.iter().for_each(|id| self.relocate(id, &host));
    }

    /// Hands the volumes of an instance that runs, or is about to, to its host: what it writes from now on, only the host
    /// knows.
    pub fn volumes_have_come(&mut self, instance_id: &str) {
        let Some(instance) = self.get::<Instance>(instance_id).cloned() else {
            return;
        };
        let runs = matches!(instance.state, InstanceState::Pending | InstanceState::Running);
        if !runs || self.awaits_volumes(&instance) {
            return;
        }
        let volumes = self.by(&Volume::BY_INSTANCE, instance_id);
        let here = volumes.filter(|volume| volume.host_id.as_ref() == Some(&instance.host_id));
        let here = here.filter(|volume| volume.known != Known::ByHost);
        let ids: Vec<String> = here.map(|volume| volume.id.clone()).collect();
        for id in ids {
            self.update::<Volume>(&id, |volume| volume.known = Known::ByHost);
        }
        if instance.reason_code == lifecycle::MOVING {
            let now = self.now();
            self.update::<Instance>(instance_id, |row| {
                row.reason_code.clear();
                row.reason_message.clear();
                // Its deadline begins here.
                row.state_since = now;
            });
        }
    }

    /// A volume stays where it is.
    pub fn cancel_move(&mut self, volume_id: &str) {
        if let Some(id) = self.storing(volume_id).map(|row| row.id.clone()) {
            self.remove::<Move>(&id);
            self.event("volume.stays", volume_id);
        }
    }

    /// A volume cannot be moved, and stays where it is. An instance that runs does not get it, and one that was to start
    /// stays stopped.
    pub fn fail_move(&mut self, id: &str, why: &str) {
        let Some(row) = self.get::<Move>(id).filter(|row| row.is_storing()).cloned() else {
            return;
        };
        let volume_id = row.volume_id;
        tracing::warn!(volume = volume_id, host = row.from, why, "a volume was not moved");
        self.cancel_move(&volume_id);
        let Some(volume) = self.get::<Volume>(&volume_id).cloned() else {
            return;
        };
        let instance = volume
            .instance_id()
            .and_then(|id| self.get::<Instance>(id))
            .cloned();
        let Some(instance) = instance else { return };
        let why = format!(
            "The volume {volume_id} was not moved from the host {}: {why}",
            row.from
        );
        match lifecycle::fail_start(&instance.lifecycle(), &why) {
            Some(change) => self.change_instance(&instance.id, &change),
            None => {
                let mut volume = volume;
                volume.detach(self.now());
                self.put(volume);
                self.event("volume.available", &volume_id);
            }
        }
    }

    /// The old host has nothing of the volume any more.
    pub fn drop_copy(&mut self, id: &str) {
        self.update::<Move>(id, |row| {
            if let Stage::Stored { is_left, .. } = &mut row.stage {
                *is_left = false;
            }
        });
    }
}
