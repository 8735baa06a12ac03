//! Instances: what was asked for, what their hosts say of them, what they hold, and the one place where a change of their
//! life is written.

use hearth_api::agent::instance_intent::Desired;
use hearth_api::{InstanceState, Kind};
use serde::{Deserialize, Serialize};

use super::{Attachment, Host, Incarnation, NetworkInterface, Snapshot, StoreMapping, Volume, names};
use crate::lifecycle::{self, Change, Command, Hold, Lifecycle, ReasonChange};
use crate::state::noun::{regional, resource};
use crate::state::{Concern, Index, Noun, State, Sum, Tags, Tx, key};

/// The instances of one RunInstances.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    pub id: String,
    pub account_id: String,
    #[serde(default)]
    pub region: String,
    pub created_at: i64,
}

impl Noun for Reservation {
    const KIND: &'static str = "reservation";
    const RESOURCE: Option<Kind> = Some(Kind::Reservation);

    fn id(&self) -> &str {
        &self.id
    }

    fn account(&self) -> &str {
        &self.account_id
    }

    regional!();
}

/// An instance's instance profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileAssociation {
    /// `iip-assoc-...`.
    pub id: String,
    /// It may be gone; then it gives nothing.
    pub profile_id: String,
    /// Milliseconds since the epoch.
    pub since: i64,
}

impl ProfileAssociation {
    /// One that there has never been.
    pub fn new(profile_id: &str, now: i64) -> Self {
        Self {
            id: format!("iip-assoc-0{:016x}", rand::random::<u64>()),
            profile_id: profile_id.to_owned(),
            since: now,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    pub id: String,
    pub account_id: String,
    #[serde(default)]
    pub region: String,
    pub reservation_id: String,
    pub ami_launch_index: u32,
    pub image_id: String,
    pub instance_type: String,
    /// What the type had at the launch: a type that leaves the catalogue changes no instance.
    pub vcpus: u32,
    pub memory_mib: u64,
    /// Its disks of the instance store, which it has while it runs.
    #[serde(default)]
    pub store: Vec<StoreDisk>,
    /// The run that began with new disks.
    #[serde(default)]
    pub store_run: u64,
    /// Where it lives, or has lived last ([`super::Incarnation`]).
    pub host_id: String,
    pub availability_zone: String,
    pub key_name: String,
    /// The key as it was at launch: deleting the pair does not change a running instance.
    pub public_key: String,
    /// Names a blob.
    pub user_data: Option<String>,
    pub client_token: String,
    pub shutdown_behavior: String,
    pub http_tokens: String,
    pub http_endpoint: String,
    pub http_hop_limit: u32,
    /// Whether the instance's metadata has its tags.
    pub metadata_tags: String,
    pub auto_recovery: String,
    /// Whether StopInstances is refused.
    #[serde(default)]
    pub disable_api_stop: bool,
    /// Whether TerminateInstances is refused.
    #[serde(default)]
    pub disable_api_termination: bool,
    /// What gives it a role.
    #[serde(default)]
    pub profile: Option<ProfileAssociation>,
    /// Whether each start takes an address out of the public pool.
    pub public_address: bool,
    /// Milliseconds since the epoch.
    pub launch_time: i64,
    #[serde(with = "names::desired")]
    pub desired: Desired,
    /// Counts starts.
    pub run: u64,
    /// Counts reboots asked for.
    pub reboot: u64,
    /// No power button: end it now.
    pub force: bool,
    /// It is shut down for an image, and runs again when the point in time of its volumes has come.
    #[serde(default)]
    pub imaging: bool,
    /// Concluded from what is wanted and what its host says.
    #[serde(with = "names::instance_state")]
    pub state: InstanceState,
    /// When it came into this state, in milliseconds since the epoch.
    #[serde(default)]
    pub state_since: i64,
    pub reason_code: String,
    pub reason_message: String,
    pub transition_reason: String,
    pub terminated_at: Option<i64>,
    pub tags: Tags,
}

/// A disk of the instance store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreDisk {
    pub number: u32,
    /// GB (10^9 bytes).
    pub size_gb: u32,
    /// What a block device mapping calls it, such as `/dev/sdb`; empty: it is there without one.
    pub device: String,
}

impl StoreDisk {
    pub fn bytes(&self) -> u64 {
        u64::from(self.size_gb) * 1_000_000_000
    }
}

/// GiB that disks of an instance take on a host.
pub fn store_gib(disks: &[StoreDisk]) -> u64 {
    disks.iter().map(StoreDisk::bytes).sum::<u64>().div_ceil(1 << 30)
}

/// Of `auto_recovery`.
pub const AUTO_RECOVERY_DEFAULT: &str = "default";
pub const AUTO_RECOVERY_DISABLED: &str = "disabled";

/// Of `metadata_tags`.
pub const METADATA_TAGS_ENABLED: &str = "enabled";

/// `instance-initiated-shutdown-behavior`.
pub const SHUTDOWN_STOP: &str = "stop";
pub const SHUTDOWN_TERMINATE: &str = "terminate";

impl Instance {
    pub const BY_HOST: Index<Self> = Index::refers::<Host>("host", |i| vec![i.host_id.clone()]);
    pub const BY_RESERVATION: Index<Self> =
        Index::refers::<Reservation>("reservation", |i| vec![i.reservation_id.clone()]);
    pub const BY_STATE: Index<Self> = Index::new("state", |i| vec![i.state.name().to_owned()]);
    /// Each of its tags, as key and value.
    pub const BY_TAG: Index<Self> = Index::new("tag", |i| {
        i.tags.iter().map(|(k, value)| key(&[k, value])).collect()
    });
    pub const BY_ASSOCIATION: Index<Self> = Index::unique("association", |i| {
        i.profile
            .iter()
            .map(|association| association.id.clone())
            .collect()
    });
    pub const BY_PROFILE: Index<Self> = Index::new("profile", |i| {
        i.profile
            .iter()
            .map(|association| association.profile_id.clone())
            .collect()
    });
    pub const BY_USER_DATA: Index<Self> = Index::new("user-data", |i| i.user_data.iter().cloned().collect());
    /// Instances that count towards the account's limit in their region ([`Scope::key`]).
    pub const ALIVE: Sum<Self> = Sum {
        name: "alive",
        part: |i| (i.state != InstanceState::Terminated).then(|| (key(&[&i.account_id, &i.region]), [1, 0])),
    };

    /// The disks of its instance store that block device mappings have named.
    pub fn mapped_store(&self) -> Vec<StoreMapping> {
        let mapped = self.store.iter().filter(|disk| !disk.device.is_empty());
        mapped
            .map(|disk| StoreMapping {
                number: disk.number,
                device: disk.device.clone(),
            })
            .collect()
    }

    pub fn lifecycle(&self) -> Lifecycle {
        Lifecycle {
            state: self.state,
            desired: self.desired,
            run: self.run,
            reboot: self.reboot,
            force: self.force,
            power_off_terminates: self.shutdown_behavior == SHUTDOWN_TERMINATE,
        }
    }
}

impl Noun for Instance {
    const KIND: &'static str = "instance";
    const RESOURCE: Option<Kind> = Some(Kind::Instance);
    const INDEXES: &'static [Index<Self>] = &[
        Self::BY_HOST,
        Self::BY_RESERVATION,
        Self::BY_STATE,
        Self::BY_TAG,
        Self::BY_ASSOCIATION,
        Self::BY_PROFILE,
        Self::BY_USER_DATA,
    ];
    const SUMS: &'static [Sum<Self>] = &[Self::ALIVE];

    fn concerns(&self, _: &State) -> Vec<Concern> {
        vec![Concern::Instance {
            host_id: self.host_id.clone(),
            instance_id: self.id.clone(),
        }]
    }

    resource!();
}

/// What the agent reported last of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    pub instance_id: String,
    /// As in the agents' protocol.
    pub phase: i32,
    pub run: u64,
    /// As in the agents' protocol.
    pub end_cause: i32,
    pub end_message: String,
    pub start_micros: u64,
    pub reboot: u64,
    /// Times that the run was started again after its host had restarted, as the host counts them.
    pub recoveries: u32,
    /// Whether the machine was last booted by firmware, and not by entering its kernel; absent before the first boot, and where
    /// its host does not tell.
    #[serde(default)]
    pub by_firmware: Option<bool>,
}

impl Noun for Observation {
    const KIND: &'static str = "observation";
    const INDEXES: &'static [Index<Self>] = &[Index::owned::<Instance>("instance", |o| {
        vec![o.instance_id.clone()]
    })];

    fn id(&self) -> &str {
        &self.instance_id
    }
}

impl Tx<'_> {
    /// Writes a change of an instance's life, releases what it no longer holds, and lets watchers know.
    /// Taking compute is the caller's part: only it can say how much there is.
    pub fn change_instance(&mut self, id: &str, change: &Change) {
        let Some(before) = self.get::<Instance>(id).cloned() else {
            return;
        };
        let now = self.now();
        let next = &change.next;
        let mut after = before;
        match &change.reason {
            ReasonChange::Keep => {}
            ReasonChange::Clear => {
                after.reason_code.clear();
                after.reason_message.clear();
                after.transition_reason.clear();
            }
            ReasonChange::Set(reason) => {
                after.reason_code = reason.code.to_owned();
                after.reason_message = reason.message.clone();
                after.transition_reason = match reason.transition {
                    "" => String::new(),
                    who => format!("{who} ({})", gmt(now)),
                };
            }
        }
        if after.state != next.state {
            after.state_since = now;
        }
        after.state = next.state;
        after.desired = next.desired;
        after.run = next.run;
        after.reboot = next.reboot;
        after.force = next.force;
        let was_imaging = after.imaging;
        after.imaging &= matches!(
            next.state,
            InstanceState::Running | InstanceState::Stopping | InstanceState::Stopped
        );
        let is_imaging = after.imaging;
        after.terminated_at = (next.state == InstanceState::Terminated).then_some(now);
        if change.hold == Hold::TakeCompute {
            after.launch_time = now;
            after.store_run = after.run;
        }
        self.put(after);
        match next.state {
            InstanceState::Running => self.note_made(id),
            InstanceState::Stopped => self.settle_volumes(id),
            _ => {}
        }
        match next.state {
            InstanceState::Pending => {
                self.fetch_volumes(id);
                self.volumes_have_come(id);
            }
            InstanceState::Running => self.volumes_have_come(id),
            _ => self.keep_volumes(id),
        }
        match change.hold {
            Hold::Keep | Hold::TakeCompute => {}
            // It runs again soon, where it was.
            Hold::DropCompute if is_imaging => {}
            Hold::DropCompute => self.drop_compute(id),
            Hold::DropAll => self.drop_all(id),
        }
        self.event(&format!("instance.{}", next.state), id);
        if was_imaging && (!is_imaging || next.state == InstanceState::Stopped) {
            self.release_snapshots(id);
            self.run_after_image(id);
        }
    }

    /// Snapshots of the instance's volumes wait for it no longer: their host is told of them.
    fn release_snapshots(&mut self, id: &str) {
        let volumes = self.by(&Volume::BY_INSTANCE, id);
        let pending = volumes.filter_map(|volume| self.pending_snapshot(&volume.id));
        let concerns: Vec<Concern> = pending.flat_map(|snapshot| snapshot.concerns(self)).collect();
        concerns.into_iter().for_each(|concern| self.concern(concern));
    }

    /// Starts an instance that was shut down for an image, unless the point in time of a snapshot of it has still to come. It
    /// has kept its compute.
    pub fn run_after_image(&mut self, id: &str) {
        let Some(row) = self.get::<Instance>(id) else {
            return;
        };
        let is_due = |volume: &Volume| {
            let pending = self.pending_snapshot(&volume.id);
            pending.is_none_or(Snapshot::is_settled)
        };
        let are_due = self.by(&Volume::BY_INSTANCE, id).all(is_due);
        if !row.imaging || row.state != InstanceState::Stopped || !are_due {
            return;
        }
        if let Ok(Some(start)) = lifecycle::apply(&row.lifecycle(), Command::Start, id) {
            let again = Change {
                hold: Hold::Keep,
                ..start
            };
            self.change_instance(id, &again);
        }
    }

    /// The instance does not run, or is about to end: its volumes need not come to it any more.
    fn keep_volumes(&mut self, id: &str) {
        let volumes = self.by(&Volume::BY_INSTANCE, id);
        let ids: Vec<String> = volumes.map(|volume| volume.id.clone()).collect();
        ids.iter().for_each(|id| self.cancel_move(id));
    }

    /// As in EC2 a stopped instance gives its public address back.
    fn drop_compute(&mut self, id: &str) {
        self.update::<Incarnation>(id, |life| {
            (life.vcpus, life.memory_mib, life.store_gib) = (0, 0, 0)
        });
        if let Some(interface) = self.interface_of(id).map(|interface| interface.id.clone()) {
            self.update::<NetworkInterface>(&interface, |interface| interface.public_ip = None);
        }
    }

    /// Nothing of the instance is left on its host but what shall outlive it.
    fn drop_all(&mut self, id: &str) {
        let host = self.get::<Instance>(id).map(|row| row.host_id.clone());
        self.remove::<Incarnation>(id);
        let interfaces: Vec<NetworkInterface> =
            self.by(&NetworkInterface::BY_INSTANCE, id).cloned().collect();
        for mut interface in interfaces {
            if interface
                .attachment
                .take()
                .is_some_and(|a| a.delete_on_termination)
            {
                self.remove::<NetworkInterface>(&interface.id);
            } else {
                self.put(interface);
            }
        }
        let volumes: Vec<Volume> = self.by(&Volume::BY_INSTANCE, id).cloned().collect();
        for mut volume in volumes {
            // One that was to be detached is not the instance's any more.
            let goes = |a: &Attachment| a.delete_on_termination && !a.progress.is_ending();
            let goes = volume.attachment.as_ref().is_some_and(goes);
            let is_here = volume.host_id.is_none() || volume.host_id == host;
            if goes && is_here && self.pending_snapshot(&volume.id).is_none() {
                self.remove_volume(&volume.id);
            } else {
                // Its host has kept it, for its snapshot or because it is another one, and erases it then.
                volume.deleting |= goes;
                volume.detach(self.now());
                self.put(volume);
            }
        }
    }
}

/// `2026-11-23 10:00:00 GMT`
fn gmt(milliseconds: i64) -> String {
    jiff::Timestamp::from_millisecond(milliseconds)
        .map(|t| t.strftime("%Y-%m-%d %H:%M:%S GMT").to_string())
        .unwrap_or_default()
}
