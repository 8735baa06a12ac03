//! Snapshots of volumes, and what volumes begin with.

use std::collections::BTreeSet;

use hearth_api::{ErrorCode, InstanceState, Kind};
use serde::{Deserialize, Serialize};

use super::{Encryption, Host, Image, Instance, Move, Volume};
use crate::state::noun::regional;
use crate::state::{Bound, Concern, Index, Noun, Scope, State, Sum, Tags, Tx};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub id: String,
    pub account_id: String,
    pub region: String,
    /// The volume may be gone.
    pub volume_id: String,
    /// Of the volume.
    pub size_gib: u64,
    pub description: String,
    pub contents: Contents,
    /// `None`: it is not encrypted.
    #[serde(default)]
    pub encryption: Option<Encryption>,
    /// Bytes that were stored for it, at most: what it shares with others counts once.
    pub stored: u64,
    /// Milliseconds since the epoch.
    pub started_at: i64,
    /// Whether every account may make volumes from it.
    pub is_public: bool,
    /// Accounts that may make volumes from it, beside its own.
    pub shared_with: BTreeSet<String>,
    /// It is not told any more, and lives on while something is based on it.
    pub deleted: bool,
    pub tags: Tags,
}

/// What a snapshot holds, as far as it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Contents {
    Pending(Pending),
    /// It is written anew, under its own data key.
    Copying(Copying),
    Completed {
        /// `None`: zeros.
        disk: Option<Disk>,
        /// Milliseconds since the epoch.
        at: i64,
    },
    Error {
        message: String,
    },
}

/// The host of the volume stores it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    pub host_id: String,
    /// Its point in time has come.
    pub is_frozen: bool,
    /// Of what changed, how much is stored.
    pub percent: u32,
    /// Snapshots of one set are of one point in time.
    pub set: Option<String>,
}

/// The control plane reads a disk under one data key and writes it under another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copying {
    pub source: Disk,
    /// Of the source; `None`: it is not encrypted.
    pub encryption: Option<Encryption>,
    /// Of the source.
    pub region: String,
    /// How much is written.
    pub percent: u32,
}

/// A disk in the repository. Several snapshots may share one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// In the repository.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// As of an image; empty where nobody has read it as a whole.
    pub digest: String,
}

/// What volumes begin with: an image's disk, a snapshot's, or what was stored for a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base<'s> {
    /// Of the image, the snapshot or the move.
    pub id: &'s str,
    /// Of the disk in the repository.
    pub name: &'s str,
    /// Bytes.
    pub size: u64,
    /// Empty: not known.
    pub digest: &'s str,
    /// `None`: it is not encrypted.
    pub encryption: Option<&'s Encryption>,
    /// Of the image or the snapshot.
    pub region: &'s str,
}

impl Snapshot {
    pub const BY_HOST: Index<Self> = Index::refers::<Host>("host", |s| {
        s.pending()
            .map(|pending| pending.host_id.clone())
            .into_iter()
            .collect()
    });
    /// Pending ones, by their volume. A volume has one at a time.
    pub const BY_VOLUME: Index<Self> = Index::unique("pending-volume", |s| {
        s.pending().map(|_| s.volume_id.clone()).into_iter().collect()
    });
    /// By its disk in the repository, or the one that it is copied from.
    pub const BY_DISK: Index<Self> = Index::new("disk", |s| {
        let disk = s.disk().or(s.copying().map(|copying| &copying.source));
        disk.map(|disk| disk.name.clone()).into_iter().collect()
    });
    /// Those that are written anew, each once, under [`Self::COPIED`].
    pub const BY_COPYING: Index<Self> = Index::new("copying", |s| {
        s.copying().map(|_| Self::COPIED.to_owned()).into_iter().collect()
    });
    pub const COPIED: &str = "yes";
    /// Deleted ones, each once, under [`Self::DELETED`].
    pub const BY_DELETED: Index<Self> = Index::new("deleted", |s| {
        s.deleted.then(|| Self::DELETED.to_owned()).into_iter().collect()
    });
    pub const DELETED: &str = "yes";

    /// How many an account has, deleted ones that are needed included, and the bytes that were stored for them.
    pub const TOTAL: Sum<Self> = Sum {
        name: "total",
        part: |s| Some((s.account_id.clone(), [1, s.stored])),
    };

    pub fn pending(&self) -> Option<&Pending> {
        match &self.contents {
            Contents::Pending(pending) => Some(pending),
            Contents::Copying(_) | Contents::Completed { .. } | Contents::Error { .. } => None,
        }
    }

    pub fn copying(&self) -> Option<&Copying> {
        match &self.contents {
            Contents::Copying(copying) => Some(copying),
            Contents::Pending(_) | Contents::Completed { .. } | Contents::Error { .. } => None,
        }
    }

    pub fn is_completed(&self) -> bool {
        matches!(self.contents, Contents::Completed { .. })
    }

    /// `None`: it is not there yet, or all zeros.
    pub fn disk(&self) -> Option<&Disk> {
        match &self.contents {
            Contents::Completed { disk, .. } => disk.as_ref(),
            Contents::Pending(_) | Contents::Copying(_) | Contents::Error { .. } => None,
        }
    }

    /// The others of its set that are pending.
    pub fn siblings<'s>(&'s self, state: &'s State) -> impl Iterator<Item = &'s Self> + use<'s> {
        let pending = self.pending().filter(|pending| pending.set.is_some());
        pending.into_iter().flat_map(move |own| {
            let on_host = state.by(&Self::BY_HOST, &own.host_id);
            on_host.filter(move |row| {
                let is_of_set = row.pending().is_some_and(|pending| pending.set == own.set);
                is_of_set && row.id != self.id
            })
        })
    }

    /// Whether its volume's instance is being shut down for it: its host is not told of it before that is done.
    pub fn waits_for_instance(&self, state: &State) -> bool {
        let volume = state.of_anybody::<Volume>(&self.volume_id);
        let instance = volume
            .and_then(Volume::instance_id)
            .and_then(|id| state.of_anybody::<Instance>(id));
        instance.is_some_and(|row| row.imaging && row.state != InstanceState::Stopped)
    }

    /// Whether later writes to its volume are not in it.
    pub fn is_settled(&self) -> bool {
        self.pending().is_none_or(|pending| pending.is_frozen)
    }
}

impl Noun for Snapshot {
    const KIND: &'static str = "snapshot";
    const RESOURCE: Option<Kind> = Some(Kind::Snapshot);
    const INDEXES: &'static [Index<Self>] = &[
        Self::BY_HOST,
        Self::BY_VOLUME,
        Self::BY_DISK,
        Self::BY_COPYING,
        Self::BY_DELETED,
    ];
    const SUMS: &'static [Sum<Self>] = &[Self::TOTAL];
    const BOUND: Option<Bound> = Some(Bound::new(100_000, "snapshots", ErrorCode::SnapshotLimitExceeded));

    fn id(&self) -> &str {
        &self.id
    }

    fn account(&self) -> &str {
        &self.account_id
    }

    regional!();

    fn is_shared_with(&self, account_id: &str) -> bool {
        self.is_public || self.shared_with.contains(account_id)
    }

    /// What its host does with the volume, and with the others of its set, depends on whether it is pending.
    fn concerns(&self, state: &State) -> Vec<Concern> {
        let Some(pending) = self.pending() else {
            return Vec::new();
        };
        let volume = state.of_anybody::<Volume>(&self.volume_id);
        let mut concerns = volume.map_or_else(Vec::new, |volume| volume.concerns(state));
        let of_set = self.siblings(state).chain([self]);
        concerns.extend(of_set.map(|row| Concern::Snapshot {
            host_id: pending.host_id.clone(),
            snapshot_id: row.id.clone(),
        }));
        concerns
    }

    /// A deleted one has none any more.
    fn tags(&self) -> Option<&Tags> {
        (!self.deleted).then_some(&self.tags)
    }

    fn tags_mut(&mut self) -> Option<&mut Tags> {
        (!self.deleted).then_some(&mut self.tags)
    }
}

impl Snapshot {
    /// What EC2 tells as the volume of a snapshot that was made of none.
    const NO_VOLUME: &str = "vol-ffffffff";

    /// One of a disk that is in the repository.
    pub fn of_disk(id: &str, scope: &Scope, disk: Option<Disk>, size_gib: u64, now: i64) -> Self {
        Self {
            id: id.to_owned(),
            account_id: scope.account_id().to_owned(),
            region: scope.region().to_owned(),
            volume_id: Self::NO_VOLUME.to_owned(),
            size_gib,
            description: String::new(),
            contents: Contents::Completed { disk, at: now },
            encryption: None,
            stored: 0,
            started_at: now,
            is_public: false,
            shared_with: BTreeSet::new(),
            deleted: false,
            tags: Tags::new(),
        }
    }
}

impl State {
    /// A snapshot that is not deleted.
    pub fn snapshot(&self, id: &str) -> Option<&Snapshot> {
        self.get::<Snapshot>(id).filter(|row| !row.deleted)
    }

    /// The snapshot of a volume that its host has not stored yet.
    pub fn pending_snapshot(&self, volume_id: &str) -> Option<&Snapshot> {
        self.first_by(&Snapshot::BY_VOLUME, volume_id)
    }

    /// What an image, a snapshot or a move is, as the beginning of volumes, whoever it belongs to. `None`: there is no such
    /// one, or it is all zeros.
    pub fn base(&self, id: &str) -> Option<Base<'_>> {
        if let Some(image) = self.of_anybody::<Image>(id) {
            return Some(Base {
                id: &image.id,
                name: &image.snapshot,
                size: image.size,
                digest: &image.digest,
                encryption: image.encryption.as_ref(),
                region: &image.region,
            });
        }
        let of_snapshot = || {
            let snapshot = self.of_anybody::<Snapshot>(id)?;
            let encryption = snapshot.encryption.as_ref();
            Some((&snapshot.id, snapshot.disk()?, encryption, &snapshot.region))
        };
        let of_move = || {
            let row = self.of_anybody::<Move>(id)?;
            // It lies under the key of its volume.
            let volume = self.of_anybody::<Volume>(&row.volume_id)?;
            Some((&row.id, row.disk()?, volume.encryption.as_ref(), &volume.region))
        };
        let (id, disk, encryption, region) = of_snapshot().or_else(of_move)?;
        Some(Base {
            id,
            name: &disk.name,
            size: disk.size,
            digest: &disk.digest,
            encryption,
            region,
        })
    }
}

impl Tx<'_> {
    /// A snapshot will not be stored any more.
    pub fn fail_snapshot(&mut self, id: &str, message: &str) {
        let is_pending = |row: &Snapshot| row.pending().is_some() || row.copying().is_some();
        if !self.get::<Snapshot>(id).is_some_and(is_pending) {
            return;
        }
        tracing::warn!(snapshot = id, message, "a snapshot was not made");
        self.update::<Snapshot>(id, |row| {
            row.contents = Contents::Error {
                message: message.to_owned(),
            };
        });
        self.event("snapshot.error", id);
        self.settle_images(id);
        self.snapshot_settled(id);
    }

    /// A snapshot is stored, of which so many bytes were told.
    pub fn complete_snapshot(&mut self, id: &str, disk: Disk, stored: u64) {
        let at = self.now();
        self.update::<Snapshot>(id, |row| {
            // The volume may have grown between the call and its point in time.
            row.size_gib = row.size_gib.max(disk.size.div_ceil(1 << 30));
            row.stored = stored;
            row.contents = Contents::Completed { disk: Some(disk), at };
        });
        self.event("snapshot.completed", id);
        self.settle_images(id);
        self.snapshot_settled(id);
    }

    /// The point in time of a snapshot has come.
    pub fn freeze_snapshot(&mut self, id: &str) {
        self.update::<Snapshot>(id, |row| {
            if let Contents::Pending(pending) = &mut row.contents {
                pending.is_frozen = true;
            }
        });
        self.snapshot_settled(id);
    }

    /// Gives up a snapshot that is not completed.
    pub fn remove_snapshot(&mut self, id: &str) {
        let instance = self.instance_of_snapshot(id);
        self.remove::<Snapshot>(id);
        if let Some(instance) = instance {
            self.run_after_image(&instance);
        }
    }

    fn snapshot_settled(&mut self, id: &str) {
        if let Some(instance) = self.instance_of_snapshot(id) {
            self.run_after_image(&instance);
        }
    }

    /// The instance that has the volume of a snapshot.
    fn instance_of_snapshot(&self, id: &str) -> Option<String> {
        let volume: &Volume = self.get(&self.get::<Snapshot>(id)?.volume_id)?;
        volume.instance_id().map(str::to_owned)
    }
}
