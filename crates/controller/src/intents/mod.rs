//! What a host shall make so: all that is its own at a sequence ([`all`]), and what changed since it was told last
//! ([`changes`]). Pure.
//!
//! Of security groups a host gets those that its interfaces are in, with their rules, and those that a rule of these names,
//! with their members. A launch into a group whose members no rule names concerns its own host alone. Of VPCs it gets those that
//! its interfaces are in, with the routes of their subnets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use hearth_api::agent::{
    InstanceIntent, InstanceVolume, Intents, IntentsDelta, MembersDelta, SecurityGroupIntent, SnapshotIntent,
    SubnetIntent, VolumeIntent, VpcDelta, VpcIntent, volume_intent,
};
use prost::Message as _;

use crate::state::{
    self, Concern, Incarnation, Move, NetworkInterface, SecurityGroup, Snapshot, Stage, State, Subnet, Topic,
    Volume, Vpc,
};
use crate::views::Cloud;

mod group;
mod instance;
#[cfg(test)]
mod tests;

use group::{add_members, add_rules};
use instance::life;

/// The newest intents that a host was sent, or has made durable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Newest {
    pub epoch: String,
    pub sequence: u64,
}

impl Newest {
    fn of(state: &State) -> Self {
        let cloud = state.get::<state::Cloud>(state::Cloud::ID);
        Self {
            epoch: cloud.map(|cloud| cloud.epoch.clone()).unwrap_or_default(),
            sequence: state.sequence(),
        }
    }

    pub fn covers(&self, other: &Self) -> bool {
        self.epoch == other.epoch && self.sequence >= other.sequence
    }
}

/// What a host was told, as far as it takes to find out what is new: small, whatever the groups have for members.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    pub newest: Newest,
    instances: BTreeMap<String, ToldInstance>,
    groups: BTreeMap<String, ToldGroup>,
    vpcs: BTreeMap<String, ToldVpc>,
    volumes: BTreeMap<String, VolumeIntent>,
    snapshots: BTreeMap<String, SnapshotIntent>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ToldInstance {
    /// Of the intent.
    digest: blake3::Hash,
    /// Of its interfaces.
    subnets: BTreeSet<String>,
    groups: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ToldVpc {
    dns_disabled: bool,
    /// Those that interfaces of the host are in.
    subnets: BTreeMap<String, SubnetIntent>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ToldGroup {
    vpc_id: String,
    /// An interface of the host is in it.
    with_rules: bool,
    /// A rule of the host's names it.
    with_members: bool,
}

impl Told {
    /// Whether what a topic says may change what the host was told.
    pub fn follows(&self, topic: &Topic) -> bool {
        match topic {
            Topic::Host(_) => true,
            Topic::Vpc(id) => self.vpcs.contains_key(id),
            Topic::Rules(id) => self.groups.get(id).is_some_and(|group| group.with_rules),
            Topic::Members(id) => self.groups.get(id).is_some_and(|group| group.with_members),
        }
    }

    /// What its groups and its VPCs follow.
    pub fn topics(&self) -> impl Iterator<Item = Topic> {
        let groups = self.groups.iter().flat_map(|(id, group)| {
            let rules = group.with_rules.then(|| Topic::Rules(id.clone()));
            let members = group.with_members.then(|| Topic::Members(id.clone()));
            rules.into_iter().chain(members)
        });
        groups.chain(self.vpcs.keys().cloned().map(Topic::Vpc))
    }

    /// Takes an instance up. Answers whether its intent is another one than before. That it has run follows from the host's
    /// own word: this alone is no news to it.
    fn note(&mut self, intent: &InstanceIntent, interfaces: &[&NetworkInterface]) -> bool {
        let mut without = intent.clone();
        // A host that a volume has come to does not know by itself that it had it once before.
        let stayed = |volume: &&mut InstanceVolume| !volume.image_id.starts_with(Move::PREFIX);
        for volume in without.volumes.iter_mut().filter(stayed) {
            volume.has_run = false;
        }
        let told = ToldInstance {
            digest: blake3::hash(&without.encode_to_vec()),
            subnets: interfaces
                .iter()
                .map(|interface| interface.subnet_id.clone())
                .collect(),
            groups: interfaces
                .iter()
                .flat_map(|interface| interface.groups.clone())
                .collect(),
        };
        let before = self.instances.insert(intent.instance_id.clone(), told.clone());
        before.as_ref() != Some(&told)
    }

    /// Takes up what the networks of the host's interfaces are like.
    fn note_networks(&mut self, state: &State) {
        self.note_groups(state);
        self.note_vpcs(state);
    }

    fn note_vpcs(&mut self, state: &State) {
        self.vpcs.clear();
        let subnets: BTreeSet<&String> = self.instances.values().flat_map(|told| &told.subnets).collect();
        // Many subnets have one table.
        let mut internet: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for subnet in subnets.into_iter().filter_map(|id| state.get::<Subnet>(id)) {
            let Some(vpc) = state.get::<Vpc>(&subnet.vpc_id) else {
                continue;
            };
            let table = state.table_of(subnet);
            let internet = table.map(|table| {
                let known = internet.entry(&table.id);
                known.or_insert_with(|| state.internet(table).iter().map(ToString::to_string).collect())
            });
            let told = self.vpcs.entry(vpc.id.clone()).or_insert_with(|| ToldVpc {
                dns_disabled: !vpc.dns_support,
                subnets: BTreeMap::new(),
            });
            let intent = SubnetIntent {
                subnet_id: subnet.id.clone(),
                cidr_block: subnet.cidr.to_string(),
                internet_cidrs: internet.cloned().unwrap_or_default(),
            };
            told.subnets.insert(subnet.id.clone(), intent);
        }
    }

    fn note_groups(&mut self, state: &State) {
        self.groups.clear();
        let own: BTreeSet<&str> = self
            .instances
            .values()
            .flat_map(|told| told.groups.iter().map(String::as_str))
            .collect();
        let rules = own.iter().flat_map(|id| state.rules_of(id));
        let named = rules.filter_map(|rule| rule.referenced_group_id.as_deref());
        let named: BTreeSet<&str> = named.collect();
        for id in own.union(&named) {
            if let Some(group) = state.get::<SecurityGroup>(id) {
                let told = ToldGroup {
                    vpc_id: group.vpc_id.clone(),
                    with_rules: own.contains(id),
                    with_members: named.contains(id),
                };
                self.groups.insert((*id).to_owned(), told);
            }
        }
    }
}

/// What is to be sent to a host.
#[derive(Debug)]
pub struct Letter<T> {
    pub intents: T,
    /// The blob of each instance's user data, in the order of the instances; the intents are without.
    pub user_data: Vec<Option<String>>,
    /// What the host was told once it has it.
    pub told: Told,
}

/// All intents of a host; `None` for a host that is unknown or forgotten.
pub fn all(state: &State, host_id: &str, cloud: &Cloud) -> Option<Letter<Intents>> {
    state.host(host_id)?;
    let mut told = Told {
        newest: Newest::of(state),
        ..Told::default()
    };
    let (mut instances, mut user_data) = (Vec::new(), Vec::new());
    for row in state.by(&Incarnation::BY_HOST, host_id) {
        let Some((intent, blob, interfaces)) = life(state, &row.instance_id, host_id) else {
            continue;
        };
        told.note(&intent, &interfaces);
        instances.push(intent);
        user_data.push(blob);
    }
    let lying = state.by(&Volume::BY_HOST, host_id).map(|row| &row.id);
    let copies = state.by(&Move::BY_HOST, host_id).filter(|row| row.is_left());
    let mut volumes: Vec<VolumeIntent> = lying
        .chain(copies.map(|row| &row.volume_id))
        .filter_map(|id| volume(state, id, host_id))
        .collect();
    volumes.sort_by(|one, other| one.volume_id.cmp(&other.volume_id));
    let each = volumes
        .iter()
        .map(|volume| (volume.volume_id.clone(), volume.clone()));
    told.volumes = each.collect();
    let pending = state.by(&Snapshot::BY_HOST, host_id).map(|row| &row.id);
    let moves = state.by(&Move::BY_HOST, host_id).map(|row| &row.id);
    let snapshots: Vec<SnapshotIntent> = moves
        .chain(pending)
        .filter_map(|id| snapshot(state, id, host_id))
        .collect();
    let each = snapshots
        .iter()
        .map(|snapshot| (snapshot.snapshot_id.clone(), snapshot.clone()));
    told.snapshots = each.collect();
    told.note_networks(state);
    let mut vpcs: BTreeMap<&str, VpcIntent> = BTreeMap::new();
    for (id, of_vpc) in &told.vpcs {
        if let Some(vpc) = state.get::<Vpc>(id) {
            vpcs.insert(
                id,
                VpcIntent {
                    vpc_id: vpc.id.clone(),
                    cidr_block: vpc.cidr.to_string(),
                    public_pool_cidr: cloud.public_pool.to_string(),
                    security_groups: Vec::new(),
                    subnets: of_vpc.subnets.values().cloned().collect(),
                    dns_disabled: of_vpc.dns_disabled,
                },
            );
        }
    }
    for (id, group) in &told.groups {
        if let Some(vpc) = vpcs.get_mut(group.vpc_id.as_str()) {
            vpc.security_groups.push(tell(state, id, group));
        }
    }
    let vpcs = vpcs.into_values().collect();
    Some(Letter {
        intents: Intents {
            sequence: told.newest.sequence,
            epoch: told.newest.epoch.clone(),
            instances,
            vpcs,
            volumes,
            snapshots,
        },
        user_data,
        told,
    })
}

/// What a host shall do with a volume that no instance has there: one of its own, or its copy of one that has left it.
fn volume(state: &State, id: &str, host_id: &str) -> Option<VolumeIntent> {
    if let Some(Stage::Stored { epoch, .. }) = state.old_copy(id, host_id).map(|row| &row.stage) {
        return Some(VolumeIntent {
            volume_id: id.to_owned(),
            epoch: *epoch,
            desired: volume_intent::Desired::Erased.into(),
        });
    }
    let row = state.get::<Volume>(id)?;
    // Its contents are needed until they are stored.
    let is_erased = row.deleting && state.pending_snapshot(id).is_none();
    let desired = match is_erased {
        true => volume_intent::Desired::Erased,
        false => volume_intent::Desired::Kept,
    };
    let is_kept = row.attachment.is_none() || state.is_away(row);
    (row.host_id.as_deref() == Some(host_id) && is_kept).then(|| VolumeIntent {
        volume_id: row.id.clone(),
        epoch: row.epoch,
        desired: desired.into(),
    })
}

/// A snapshot that a host shall store, or a volume that is to leave it.
fn snapshot(state: &State, id: &str, host_id: &str) -> Option<SnapshotIntent> {
    if let Some(row) = state.get::<Move>(id) {
        // A volume has one point in time at a time.
        let is_due =
            row.is_storing() && row.from == host_id && state.pending_snapshot(&row.volume_id).is_none();
        return is_due.then(|| SnapshotIntent {
            snapshot_id: row.id.clone(),
            volume_id: row.volume_id.clone(),
            encrypted: (state.get::<Volume>(&row.volume_id)).is_some_and(|row| row.encryption.is_some()),
            ..SnapshotIntent::default()
        });
    }
    let row = state.get::<Snapshot>(id)?;
    let pending = row.pending().filter(|pending| pending.host_id == host_id)?;
    if row.waits_for_instance(state) {
        return None;
    }
    // Those that were given up are waited for no more.
    let set_size = row.siblings(state).count() + usize::from(pending.set.is_some());
    Some(SnapshotIntent {
        snapshot_id: row.id.clone(),
        volume_id: row.volume_id.clone(),
        set_id: pending.set.clone().unwrap_or_default(),
        set_size: u32::try_from(set_size).unwrap_or(u32::MAX),
        encrypted: row.encryption.is_some(),
    })
}

fn tell(state: &State, id: &str, group: &ToldGroup) -> SecurityGroupIntent {
    let mut told = SecurityGroupIntent {
        group_id: id.to_owned(),
        ..SecurityGroupIntent::default()
    };
    if group.with_rules {
        add_rules(state, &mut told);
    }
    if group.with_members {
        add_members(state, &mut told);
    }
    told
}

/// What changed for a host since it was told last, of what is said to concern it; `None` for a host that is unknown or
/// forgotten.
pub fn changes(
    state: &State,
    host_id: &str,
    cloud: &Cloud,
    before: &Told,
    concerns: &BTreeSet<Concern>,
) -> Option<Letter<IntentsDelta>> {
    state.host(host_id)?;
    let mut told = before.clone();
    told.newest = Newest::of(state);
    let mut delta = IntentsDelta {
        epoch: told.newest.epoch.clone(),
        after: before.newest.sequence,
        sequence: told.newest.sequence,
        ..IntentsDelta::default()
    };
    let mut user_data = Vec::new();
    let (mut rules, mut members) = (BTreeSet::new(), BTreeMap::<&str, Vec<Ipv4Addr>>::new());
    for concern in concerns {
        match concern {
            // These are looked at whatever has changed.
            Concern::Host { .. } | Concern::Vpc { .. } => {}
            Concern::Rules { group_id } => {
                rules.insert(group_id.as_str());
            }
            Concern::Volume { volume_id, .. } => match volume(state, volume_id, host_id) {
                Some(intent) => {
                    // Between two deltas an instance may have had it: then its epoch is another.
                    let before = told.volumes.insert(volume_id.clone(), intent.clone());
                    if before.as_ref() != Some(&intent) {
                        delta.volumes.push(intent);
                    }
                }
                None => {
                    if told.volumes.remove(volume_id).is_some() {
                        delta.removed_volumes.push(volume_id.clone());
                    }
                }
            },
            Concern::Snapshot { snapshot_id, .. } => match snapshot(state, snapshot_id, host_id) {
                Some(intent) => {
                    let before = told.snapshots.insert(snapshot_id.clone(), intent.clone());
                    if before.as_ref() != Some(&intent) {
                        delta.snapshots.push(intent);
                    }
                }
                None => {
                    if told.snapshots.remove(snapshot_id).is_some() {
                        delta.removed_snapshots.push(snapshot_id.clone());
                    }
                }
            },
            Concern::Member { group_id, address } => members.entry(group_id).or_default().push(*address),
            Concern::Instance { instance_id, .. } => match life(state, instance_id, host_id) {
                Some((intent, blob, interfaces)) => {
                    if told.note(&intent, &interfaces) {
                        delta.instances.push(intent);
                        user_data.push(blob);
                    }
                }
                None => {
                    if told.instances.remove(instance_id).is_some() {
                        delta.removed_instances.push(instance_id.clone());
                    }
                }
            },
        }
    }
    told.note_networks(state);
    let mut vpcs: BTreeMap<&str, VpcDelta> = BTreeMap::new();
    for (id, group) in &told.groups {
        let is_news = before.groups.get(id) != Some(group) || group.with_rules && rules.contains(id.as_str());
        if is_news {
            let vpc = vpcs.entry(&group.vpc_id).or_default();
            vpc.security_groups.push(tell(state, id, group));
        } else if let Some(addresses) = members.get(id.as_str()).filter(|_| group.with_members) {
            let vpc = vpcs.entry(&group.vpc_id).or_default();
            vpc.members.push(membership(state, id, addresses));
        }
    }
    for (id, group) in &before.groups {
        if !told.groups.contains_key(id) && told.vpcs.contains_key(&group.vpc_id) {
            let vpc = vpcs.entry(&group.vpc_id).or_default();
            vpc.removed_security_groups.push(id.clone());
        }
    }
    let none = BTreeMap::new();
    for (id, now) in &told.vpcs {
        let then = before.vpcs.get(id);
        if then == Some(now) {
            continue;
        }
        let had = then.map_or(&none, |then| &then.subnets);
        let vpc = vpcs.entry(id).or_default();
        let is_news = |subnet: &&SubnetIntent| had.get(&subnet.subnet_id) != Some(*subnet);
        vpc.subnets = now.subnets.values().filter(is_news).cloned().collect();
        let is_gone = |id: &&String| !now.subnets.contains_key(*id);
        vpc.removed_subnets = had.keys().filter(is_gone).cloned().collect();
    }
    let is_gone = |id: &&String| !told.vpcs.contains_key(*id);
    delta.removed_vpcs = before.vpcs.keys().filter(is_gone).cloned().collect();
    delta.vpcs = vpcs
        .into_iter()
        .filter_map(|(id, change)| {
            let vpc = state.get::<Vpc>(id)?;
            Some(VpcDelta {
                vpc_id: vpc.id.clone(),
                cidr_block: vpc.cidr.to_string(),
                public_pool_cidr: cloud.public_pool.to_string(),
                dns_disabled: !vpc.dns_support,
                ..change
            })
        })
        .collect();
    Some(Letter {
        intents: delta,
        user_data,
        told,
    })
}

fn membership(state: &State, group_id: &str, addresses: &[Ipv4Addr]) -> MembersDelta {
    let (joined, left) = addresses
        .iter()
        .partition::<Vec<Ipv4Addr>, _>(|address| state.is_member(group_id, **address));
    let text = |addresses: Vec<Ipv4Addr>| addresses.iter().map(ToString::to_string).collect();
    MembersDelta {
        group_id: group_id.to_owned(),
        joined: text(joined),
        left: text(left),
    }
}

impl Letter<IntentsDelta> {
    /// Whether it says nothing new.
    pub fn is_empty(&self) -> bool {
        let delta = &self.intents;
        delta.instances.is_empty()
            && delta.removed_instances.is_empty()
            && delta.vpcs.is_empty()
            && delta.removed_vpcs.is_empty()
            && delta.volumes.is_empty()
            && delta.removed_volumes.is_empty()
            && delta.snapshots.is_empty()
            && delta.removed_snapshots.is_empty()
    }
}
