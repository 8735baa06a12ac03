//! Volumes. They exist without an instance.

use hearth_api::Kind;
use serde::{Deserialize, Serialize};

use super::{Attachment, Base, ClientToken, Encryption, Host, Image, Instance, Move, Progress, Snapshot};
use crate::catalog::volume_types::VolumeSpec;
use crate::state::noun::resource;
use crate::state::{Concern, Index, Noun, Scope, State, Sum, Tags, Tx};

/// A volume that lies on a host is also the claim of this host's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct Volume {
    pub id: String,
    pub account_id: String,
    pub region: String,
    /// `None`: no instance has it.
    pub attachment: Option<Attachment>,
    /// Of its newest attachment; 0 if it never had one.
    pub epoch: u64,
    /// Empty in rows of before volumes had one: it is their host's ([`State::zone_of`]).
    pub availability_zone: String,
    /// `None`: it is blank, and nothing of it lies anywhere.
    pub host_id: Option<String>,
    /// The image whose disk it begins with.
    pub image_id: Option<String>,
    /// The snapshot that it was made from. Without an image and a snapshot it is blank at first.
    pub snapshot_id: Option<String>,
    /// What it begins with since it came to its host; `None`: it has never moved.
    pub moved: Option<String>,
    /// What is known of its contents without its host.
    pub known: Known,
    /// Its host has made it: another one in its place would be without what was written.
    pub is_made: bool,
    /// `None`: it is not encrypted.
    pub encryption: Option<Encryption>,
    pub spec: VolumeSpec,
    /// The last one.
    pub modification: Option<Modification>,
    /// Told, and nothing else: I/O is never suspended.
    pub auto_enable_io: bool,
    pub created_at: i64,
    /// It is to be erased, and exists until its host has said that nothing of it is left.
    pub deleting: bool,
    pub tags: Tags,
}

/// What is known of a volume's contents without asking its host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Known {
    /// Nothing: it is as its instances have left it.
    #[default]
    ByHost,
    /// It is what it begins with: no instance has had it since.
    AsItBegan,
    /// It is what this snapshot holds, or will: no instance has run with it since its point in time.
    As(String),
}

/// A change of what a volume is. The volume is of the target from the beginning; only its size is told, and undone, as before
/// until an instance that runs with it has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Modification {
    pub state: ModificationState,
    pub original: VolumeSpec,
    pub target: VolumeSpec,
    /// Milliseconds since the epoch.
    pub started_at: i64,
    pub ended_at: Option<i64>,
    /// Why it failed, or has not completed yet.
    pub message: String,
    /// When earlier ones of the last day were started.
    pub earlier: Vec<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModificationState {
    /// An instance runs with the volume and does not have its new size yet.
    Modifying,
    Completed,
    /// The volume is what it was.
    Failed,
}

/// As the database has it: also volumes of before there were attachments, zones and types.
#[derive(Deserialize)]
struct Stored {
    id: String,
    account_id: String,
    #[serde(default)]
    region: String,
    #[serde(default)]
    attachment: Option<Attachment>,
    #[serde(default)]
    epoch: Option<u64>,
    #[serde(default)]
    availability_zone: String,
    #[serde(default)]
    host_id: Option<String>,
    #[serde(default)]
    image_id: Option<String>,
    #[serde(default)]
    snapshot_id: Option<String>,
    #[serde(default)]
    moved: Option<String>,
    #[serde(default)]
    known: Known,
    #[serde(default)]
    is_made: bool,
    #[serde(default)]
    encryption: Option<Encryption>,
    #[serde(default)]
    spec: Option<VolumeSpec>,
    #[serde(default)]
    modification: Option<Modification>,
    #[serde(default)]
    auto_enable_io: bool,
    created_at: i64,
    #[serde(default)]
    deleting: bool,
    tags: Tags,
    // Of before.
    #[serde(default)]
    instance_id: Option<String>,
    #[serde(default)]
    device_name: String,
    #[serde(default)]
    delete_on_termination: bool,
    #[serde(default)]
    size_gib: u64,
}

impl From<Stored> for Volume {
    fn from(stored: Stored) -> Self {
        let (device, deletes, at) = (
            &stored.device_name,
            stored.delete_on_termination,
            stored.created_at,
        );
        let before = stored
            .instance_id
            .map(|instance| Attachment::first(&instance, device, deletes, at));
        Self {
            id: stored.id,
            account_id: stored.account_id,
            region: stored.region,
            attachment: stored.attachment.or(before),
            epoch: stored.epoch.unwrap_or(1),
            availability_zone: stored.availability_zone,
            host_id: stored.host_id,
            image_id: stored.image_id,
            snapshot_id: stored.snapshot_id,
            moved: stored.moved,
            known: stored.known,
            is_made: stored.is_made,
            encryption: stored.encryption,
            spec: stored.spec.unwrap_or_else(|| VolumeSpec::plain(stored.size_gib)),
            modification: stored.modification,
            auto_enable_io: stored.auto_enable_io,
            created_at: stored.created_at,
            deleting: stored.deleting,
            tags: stored.tags,
        }
    }
}

impl Volume {
    pub const BY_INSTANCE: Index<Self> = Index::refers::<Instance>("instance", |v| {
        v.instance_id().map(str::to_owned).into_iter().collect()
    });
    pub const BY_HOST: Index<Self> = Index::refers::<Host>("host", |v| v.host_id.iter().cloned().collect());
    pub const BY_IMAGE: Index<Self> =
        Index::refers::<Image>("image", |v| v.image_id.iter().cloned().collect());
    pub const BY_SNAPSHOT: Index<Self> =
        Index::refers::<Snapshot>("snapshot", |v| v.snapshot_id.iter().cloned().collect());
    pub const BY_MOVE: Index<Self> = Index::refers::<Move>("move", |v| v.moved.iter().cloned().collect());
    /// By what it begins with: an image, a snapshot or a move.
    pub const BY_BASE: Index<Self> =
        Index::new("base", |v| v.base_id().map(str::to_owned).into_iter().collect());
    /// Volumes that wait for their hosts, each once, under [`Self::UNSETTLED`].
    pub const BY_UNSETTLED: Index<Self> = Index::new("unsettled", |v| {
        let settled = v
            .attachment
            .as_ref()
            .is_none_or(|a| a.progress == Progress::Attached);
        let unsettled = !settled || v.is_modifying();
        unsettled
            .then(|| Self::UNSETTLED.to_owned())
            .into_iter()
            .collect()
    });
    pub const UNSETTLED: &str = "yes";
    /// Volumes of a host, and their GiB.
    pub const ON_HOST: Sum<Self> = Sum {
        name: "host",
        part: |v| Some((v.host_id.clone()?, [1, v.spec.size_gib])),
    };
    /// GiB and provisioned IOPS of an account's volumes of a type ([`Self::quota_key`]).
    pub const OF_TYPE: Sum<Self> = Sum {
        name: "type",
        part: |v| {
            let of = Self::quota_key(&v.scope(), &v.spec);
            Some((of, [v.spec.size_gib, v.spec.iops.unwrap_or(0).into()]))
        },
    };

    pub fn quota_key(scope: &Scope, spec: &VolumeSpec) -> String {
        scope.key(&[spec.volume_type.as_str()])
    }

    /// Its account and region.
    pub fn scope(&self) -> Scope {
        Scope::new(&self.account_id, &self.region)
    }

    /// The instance that has it.
    pub fn instance_id(&self) -> Option<&str> {
        Some(&self.attachment.as_ref()?.instance_id)
    }

    /// The image, the snapshot or the move that it begins with.
    pub fn base_id(&self) -> Option<&str> {
        let first = || self.image_id.as_deref().or(self.snapshot_id.as_deref());
        self.moved.as_deref().or_else(first)
    }

    pub fn is_modifying(&self) -> bool {
        let modification = self.modification.as_ref();
        modification.is_some_and(|modification| modification.state == ModificationState::Modifying)
    }

    /// GiB that whoever uses it sees.
    pub fn told_gib(&self) -> u64 {
        match &self.modification {
            Some(modification) if self.is_modifying() => modification.original.size_gib,
            _ => self.spec.size_gib,
        }
    }

    /// Its size is what was asked for: a modification is completed.
    pub fn complete_modification(&mut self, now: i64) {
        if let Some(modification) = &mut self.modification
            && modification.ended_at.is_none()
        {
            modification.state = ModificationState::Completed;
            modification.ended_at = Some(now);
            modification.message.clear();
        }
    }

    /// No instance has it any more.
    pub fn detach(&mut self, now: i64) {
        self.attachment = None;
        self.complete_modification(now);
    }
}

impl Noun for Volume {
    const KIND: &'static str = "volume";
    const RESOURCE: Option<Kind> = Some(Kind::Volume);
    const INDEXES: &'static [Index<Self>] = &[
        Self::BY_INSTANCE,
        Self::BY_HOST,
        Self::BY_IMAGE,
        Self::BY_SNAPSHOT,
        Self::BY_MOVE,
        Self::BY_BASE,
        Self::BY_UNSETTLED,
    ];
    const SUMS: &'static [Sum<Self>] = &[Self::ON_HOST, Self::OF_TYPE];

    fn room(&self) -> Option<&str> {
        self.host_id.as_deref()
    }

    /// Its host keeps it, or its instance there has it. A move waits for its snapshot.
    fn concerns(&self, state: &State) -> Vec<Concern> {
        let Some(host_id) = self.host_id.clone() else {
            return Vec::new();
        };
        let instance = self.instance_id().map(|instance_id| Concern::Instance {
            host_id: host_id.clone(),
            instance_id: instance_id.to_owned(),
        });
        let moving = state.storing(&self.id).map(|row| Concern::Snapshot {
            host_id: host_id.clone(),
            snapshot_id: row.id.clone(),
        });
        let own = Concern::Volume {
            host_id,
            volume_id: self.id.clone(),
        };
        [own].into_iter().chain(instance).chain(moving).collect()
    }

    resource!();
}

impl State {
    /// What a volume begins with; `None`: zeros.
    pub fn base_of(&self, volume: &Volume) -> Option<Base<'_>> {
        self.base(volume.base_id()?)
    }

    /// A volume's availability zone.
    pub fn zone_of<'s>(&'s self, volume: &'s Volume) -> &'s str {
        let own = Some(volume.availability_zone.as_str()).filter(|zone| !zone.is_empty());
        let hosts = || {
            Some(
                self.get::<Host>(volume.host_id.as_deref()?)?
                    .availability_zone
                    .as_str(),
            )
        };
        own.or_else(hosts).unwrap_or_default()
    }
}

impl Tx<'_> {
    /// Removes a volume. The ClientToken that it was made with is kept for a while.
    pub fn remove_volume(&mut self, id: &str) {
        self.cancel_move(id);
        self.remove::<Volume>(id);
        let now = self.now();
        let tokens: Vec<ClientToken> = self.by(&ClientToken::BY_RESOURCE, id).cloned().collect();
        for mut token in tokens {
            token.outlived_at = Some(now);
            self.put(token);
        }
        self.event("volume.deleted", id);
    }

    /// The instance does not run any more, or never did: whatever was to be attached to it is, what was to be detached is
    /// detached, and modifications have nobody to wait for.
    pub fn settle_volumes(&mut self, instance_id: &str) {
        let now = self.now();
        let volumes: Vec<Volume> = self.by(&Volume::BY_INSTANCE, instance_id).cloned().collect();
        for before in volumes {
            let mut volume = before.clone();
            volume.complete_modification(now);
            match volume.attachment.as_mut() {
                Some(attachment) if attachment.progress.is_ending() => volume.detach(now),
                Some(attachment) if attachment.progress != Progress::Attached => {
                    attachment.set_progress(Progress::Attached, now);
                }
                _ => {}
            }
            if volume != before {
                self.event("volume.settled", &volume.id);
                self.put(volume);
            }
        }
    }

    /// The instance runs, with all volumes that it has: their hosts have made them.
    pub fn note_made(&mut self, instance_id: &str) {
        let unmade = self
            .by(&Volume::BY_INSTANCE, instance_id)
            .filter(|volume| !volume.is_made && settled(volume));
        let ids: Vec<String> = unmade.map(|volume| volume.id.clone()).collect();
        for id in ids {
            self.update::<Volume>(&id, |volume| volume.is_made = true);
        }
    }
}

fn settled(volume: &Volume) -> bool {
    let attachment = volume.attachment.as_ref();
    attachment.is_some_and(|attachment| attachment.progress == Progress::Attached)
}
