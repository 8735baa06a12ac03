//! Changes that follow each other are as good as all intents anew.

use std::collections::{BTreeMap, BTreeSet};

use hearth_api::agent::Intents;
use hearth_api::{InstanceState, deltas};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use super::*;
use crate::state::tests::{a_host, a_volume, an_image, an_instance};
use crate::state::{
    Association, Attachment, Contents, Disk, Host, Image, Incarnation, Instance, InternetGateway, Known,
    Move, PRIMARY, Pending, Progress, Reservation, RouteTable, SecurityGroupRule, Subnet, Tags, Tx, Volume,
};

const HOSTS: [&str; 3] = ["h-0", "h-1", "h-2"];
/// Each VPC has as many groups.
const GROUPS: usize = 4;
/// Route tables of each VPC; the first is the main one.
const TABLES: usize = 2;
const VPCS: [&str; 2] = ["vpc-0", "vpc-1"];

fn cloud() -> Cloud {
    Cloud {
        owner_id: "1".into(),
        public_pool: "198.18.0.0/24".parse().unwrap(),
    }
}

fn group_id(vpc: &str, number: usize) -> String {
    format!("sg-{vpc}-{number}")
}

fn table_id(vpc: &str, number: usize) -> String {
    format!("rtb-{vpc}-{number}")
}

fn layout(tx: &mut Tx<'_>) {
    tx.put(state::Cloud {
        owner_id: "1".into(),
        home_region: "local-1".into(),
        epoch: "one".into(),
        seal: Default::default(),
    });
    for host in HOSTS {
        tx.put(a_host(host));
    }
    for vpc in VPCS {
        tx.put(Vpc {
            id: vpc.into(),
            account_id: "1".into(),
            region: "local-1".into(),
            cidr: "10.0.0.0/16".parse().unwrap(),
            is_default: vpc == "vpc-0",
            dns_support: true,
            dns_hostnames: true,
            created_at: 0,
            tags: Tags::new(),
        });
        tx.put(Subnet {
            id: format!("subnet-{vpc}"),
            account_id: "1".into(),
            region: "local-1".into(),
            vpc_id: vpc.into(),
            cidr: "10.0.0.0/20".parse().unwrap(),
            availability_zone: "local-1a".into(),
            default_for_az: vpc == "vpc-0",
            map_public_ip_on_launch: false,
            created_at: 0,
            tags: Tags::new(),
        });
        for number in 0..TABLES {
            tx.put(RouteTable {
                id: table_id(vpc, number),
                account_id: "1".into(),
                region: "local-1".into(),
                vpc_id: vpc.into(),
                routes: BTreeMap::new(),
                associations: (number == 0)
                    .then(|| Association::new(None))
                    .into_iter()
                    .collect(),
                created_at: 0,
                tags: Tags::new(),
            });
        }
        tx.put(InternetGateway {
            id: format!("igw-{vpc}"),
            account_id: "1".into(),
            region: "local-1".into(),
            vpc_id: None,
            created_at: 0,
            tags: Tags::new(),
        });
        for number in 0..GROUPS {
            tx.put(SecurityGroup {
                id: group_id(vpc, number),
                account_id: "1".into(),
                region: "local-1".into(),
                vpc_id: vpc.into(),
                name: format!("group-{number}"),
                description: String::new(),
                created_at: 0,
                tags: Tags::new(),
            });
        }
    }
    tx.put(Image {
        digest: "00".into(),
        ..an_image("ami-1")
    });
}

fn launch(tx: &mut Tx<'_>, rng: &mut StdRng, number: u32) {
    let (id, host) = (format!("i-{number:05}"), *HOSTS.choose(rng).unwrap());
    let vpc = *VPCS.choose(rng).unwrap();
    let groups: BTreeSet<String> = (0..rng.random_range(1..3))
        .map(|_| group_id(vpc, rng.random_range(0..GROUPS)))
        .collect();
    tx.put(Reservation {
        id: format!("r-{number}"),
        account_id: "1".into(),
        region: "local-1".into(),
        created_at: 0,
    });
    let instance = Instance {
        image_id: "ami-1".into(),
        metadata_tags: "enabled".into(),
        ..an_instance(&id, host, &format!("r-{number}"))
    };
    tx.put(Incarnation::new(&instance, host, 1));
    tx.put(instance);
    tx.put(NetworkInterface {
        id: format!("eni-{number}"),
        account_id: "1".into(),
        region: "local-1".into(),
        attachment: Some(Attachment::first(&id, PRIMARY, true, 0)),
        epoch: 1,
        vpc_id: vpc.into(),
        subnet_id: format!("subnet-{vpc}"),
        mac_address: format!("02:00:00:00:{:02x}:{:02x}", number >> 8, number & 0xff),
        private_ip: (0x0a00_0004 + number % 4000).into(),
        public_ip: None,
        groups: groups.into_iter().collect(),
        tags: Tags::new(),
    });
    tx.put(Volume {
        attachment: Some(Attachment::first(&id, "/dev/vda", true, 0)),
        epoch: 1,
        host_id: Some(host.into()),
        image_id: Some("ami-1".into()),
        ..a_volume(&format!("vol-{number}"), 1)
    });
}

fn a_snapshot(id: &str, volume: &Volume, set: Option<String>) -> Snapshot {
    Snapshot {
        id: id.to_owned(),
        account_id: "1".into(),
        region: "local-1".into(),
        volume_id: volume.id.clone(),
        size_gib: volume.spec.size_gib,
        description: String::new(),
        contents: Contents::Pending(Pending {
            host_id: volume.host_id.clone().unwrap(),
            is_frozen: false,
            percent: 0,
            set,
        }),
        encryption: None,
        stored: 0,
        started_at: 0,
        is_public: false,
        shared_with: Default::default(),
        deleted: false,
        tags: Tags::new(),
    }
}

fn attach(tx: &mut Tx<'_>, mut volume: Volume, instance: &Instance) {
    volume.epoch += 1;
    volume.attachment = Some(Attachment {
        epoch: volume.epoch,
        progress: Progress::Attaching,
        ..Attachment::first(&instance.id, "/dev/sdf", false, 0)
    });
    tx.put(volume);
}

/// One random change.
fn step(tx: &mut Tx<'_>, rng: &mut StdRng, number: u32) {
    let instances: Vec<Instance> = tx.all::<Instance>().cloned().collect();
    let rules: Vec<SecurityGroupRule> = tx.all::<SecurityGroupRule>().cloned().collect();
    match rng.random_range(0..18) {
        0..=2 if instances.len() < 60 => launch(tx, rng, number),
        3 | 4 => {
            let Some(gone) = instances.choose(rng) else { return };
            tx.remove::<Incarnation>(&gone.id);
            if let Some(interface) = tx.interface_of(&gone.id).map(|interface| interface.id.clone()) {
                tx.remove::<NetworkInterface>(&interface);
            }
            let volumes = tx
                .by(&Volume::BY_INSTANCE, &gone.id)
                .map(|volume| volume.id.clone());
            let volumes: Vec<String> = volumes.collect();
            for id in volumes {
                tx.cancel_move(&id);
                match rng.random() {
                    true => tx.remove::<Volume>(&id),
                    false => tx.update::<Volume>(&id, |volume| volume.attachment = None),
                };
            }
            tx.remove::<Instance>(&gone.id);
        }
        13 => {
            let free = tx
                .all::<Volume>()
                .filter(|volume| volume.host_id.is_some() && tx.pending_snapshot(&volume.id).is_none());
            let free: Vec<Volume> = free.cloned().collect();
            let Some(volume) = free.choose(rng) else { return };
            let set = rng.random::<bool>().then(|| "set-1".to_owned());
            tx.put(a_snapshot(&format!("snap-{number:05}"), volume, set));
        }
        14 => {
            let pending = tx.all::<Snapshot>().filter(|row| row.pending().is_some());
            let pending: Vec<String> = pending.map(|row| row.id.clone()).collect();
            let Some(id) = pending.choose(rng) else { return };
            match rng.random_range(0..3) {
                0 => _ = tx.remove::<Snapshot>(id),
                1 => tx.fail_snapshot(id, "the test said so"),
                _ => {
                    tx.update::<Snapshot>(id, |row| {
                        row.contents = Contents::Completed { disk: None, at: 0 };
                    });
                }
            }
        }
        15 => {
            let Some(instance) = instances.choose(rng) else {
                return;
            };
            let host = *HOSTS.choose(rng).unwrap();
            move_to(tx, instance, host, rng.random());
        }
        16 | 17 => arrive(tx, rng),
        10 => {
            let kept = tx.all::<Volume>().filter(|volume| volume.attachment.is_none());
            let kept: Vec<Volume> = kept.cloned().collect();
            let Some(volume) = kept.choose(rng) else { return };
            let host = volume.host_id.clone();
            let there = instances.iter().find(|row| host.as_ref() == Some(&row.host_id));
            match there {
                Some(instance) if rng.random() => attach(tx, volume.clone(), instance),
                _ if volume.deleting => _ = tx.remove::<Volume>(&volume.id),
                _ => _ = tx.update::<Volume>(&volume.id, |volume| volume.deleting = true),
            }
        }
        11 => {
            let Some(instance) = instances.choose(rng) else {
                return;
            };
            let mut volume = a_volume(&format!("vol-{number}"), 1);
            volume.host_id = Some(instance.host_id.clone());
            attach(tx, volume, instance);
        }
        12 => {
            let blank = tx.all::<Volume>().filter(|volume| volume.image_id.is_none());
            let blank: Vec<Volume> = blank
                .filter(|volume| volume.attachment.is_some())
                .cloned()
                .collect();
            let Some(volume) = blank.choose(rng) else { return };
            tx.cancel_move(&volume.id);
            tx.update::<Volume>(&volume.id, |volume| match rng.random_range(0..4) {
                0 => volume.detach(0),
                1 => volume.spec.size_gib += 1,
                2 => volume.is_made = true,
                _ => {
                    let progress = [Progress::Attached, Progress::Detaching, Progress::Forced];
                    let attachment = volume.attachment.as_mut().unwrap();
                    attachment.set_progress(*progress.choose(rng).unwrap(), 0);
                }
            });
        }
        5 => {
            let Some(changed) = instances.choose(rng) else {
                return;
            };
            tx.update::<Instance>(&changed.id, |row| match rng.random_range(0..3) {
                0 => row.run += 1,
                1 => _ = row.tags.insert("Name".into(), number.to_string()),
                _ => row.state = InstanceState::Running,
            });
        }
        6 => {
            let Some(changed) = instances.choose(rng) else {
                return;
            };
            let interface = tx.interface_of(&changed.id).cloned().unwrap();
            let group = group_id(&interface.vpc_id, rng.random_range(0..GROUPS));
            tx.update::<NetworkInterface>(&interface.id, |row| row.groups = vec![group]);
        }
        7 | 8 if rules.len() < 12 => {
            let vpc = *VPCS.choose(rng).unwrap();
            let named = rng
                .random_bool(0.6)
                .then(|| group_id(vpc, rng.random_range(0..GROUPS)));
            tx.put(SecurityGroupRule {
                id: format!("sgr-{number:05}"),
                account_id: "1".into(),
                region: "local-1".into(),
                group_id: group_id(vpc, rng.random_range(0..GROUPS)),
                is_egress: rng.random(),
                protocol: 6,
                from_port: 22,
                to_port: 22,
                cidr: if named.is_some() { "" } else { "0.0.0.0/0" }.into(),
                referenced_group_id: named,
                description: String::new(),
                created_at: number.into(),
                tags: Tags::new(),
            });
        }
        _ => {
            if let Some(rule) = rules.choose(rng) {
                tx.remove::<SecurityGroupRule>(&rule.id);
            }
        }
    }
}

/// A change of a VPC's routes, of its gateway, or of its resolver.
fn reroute(tx: &mut Tx<'_>, rng: &mut StdRng) {
    let vpc = *VPCS.choose(rng).unwrap();
    let (gateway, table) = (format!("igw-{vpc}"), table_id(vpc, rng.random_range(0..TABLES)));
    match rng.random_range(0..4) {
        0 => _ = tx.update::<Vpc>(vpc, |row| row.dns_support = !row.dns_support),
        1 => {
            tx.update::<InternetGateway>(&gateway, |row| match row.vpc_id.take() {
                Some(_) => {}
                None => row.vpc_id = Some(vpc.to_owned()),
            });
        }
        2 => {
            let to = ["0.0.0.0/0", "10.0.0.0/8", "192.0.2.0/24"].choose(rng).unwrap();
            tx.update::<RouteTable>(&table, |row| {
                let to = to.parse().unwrap();
                if row.routes.remove(&to).is_none() {
                    row.routes.insert(to, gateway);
                }
            });
        }
        _ => {
            tx.update::<RouteTable>(&table_id(vpc, 1), |row| match row.associations.pop() {
                Some(_) => {}
                None => row
                    .associations
                    .push(Association::new(Some(format!("subnet-{vpc}")))),
            });
        }
    }
}

/// An instance starts on another host, unless there is something of it from before.
fn move_to(tx: &mut Tx<'_>, instance: &Instance, host: &str, stored: bool) {
    let volumes = tx.by(&Volume::BY_INSTANCE, &instance.id);
    let volumes: Vec<String> = volumes.map(|volume| volume.id.clone()).collect();
    let has_copy = volumes.iter().any(|id| tx.old_copy(id, host).is_some());
    if has_copy || tx.left(&instance.id, host).is_some() {
        return;
    }
    tx.leave(&instance.id, host);
    tx.update::<Instance>(&instance.id, |row| {
        row.host_id = host.into();
        row.run += 1;
        row.state = InstanceState::Pending;
    });
    tx.put(Incarnation::new(instance, host, instance.run + 1));
    for id in volumes {
        tx.cancel_move(&id);
        if stored {
            tx.update::<Volume>(&id, |volume| volume.known = Known::As("ami-1".into()));
        }
        tx.relocate(&id, host);
    }
    tx.volumes_have_come(&instance.id);
}

/// A host does, or cannot do, what is to be done for a volume or an instance that leaves it.
fn arrive(tx: &mut Tx<'_>, rng: &mut StdRng) {
    let lives: Vec<String> = tx
        .all::<Incarnation>()
        .filter(|life| life.is_left)
        .map(|life| life.id.clone())
        .collect();
    if let Some(id) = lives.choose(rng).filter(|_| rng.random()) {
        tx.remove::<Incarnation>(id);
        return;
    }
    let moves: Vec<Move> = tx.all::<Move>().cloned().collect();
    let Some(row) = moves.choose(rng) else { return };
    match row.is_storing() {
        true if rng.random_bool(0.3) => tx.fail_move(&row.id, "the test said so"),
        true => tx.complete_move(
            &row.id,
            Disk {
                name: "disk".into(),
                size: 1 << 30,
                digest: String::new(),
            },
        ),
        false => tx.drop_copy(&row.id),
    }
}

fn normal(mut intents: Intents) -> Intents {
    for group in intents.vpcs.iter_mut().flat_map(|vpc| &mut vpc.security_groups) {
        group.members.sort();
    }
    // Deltas that say nothing are not sent.
    intents.sequence = 0;
    for volume in intents.instances.iter_mut().flat_map(|i| &mut i.volumes) {
        volume.has_run = false;
    }
    intents
}

struct Follower {
    told: Told,
    intents: Intents,
    waiting: BTreeSet<Concern>,
}

impl Follower {
    /// Whether its session follows the topic of a concern.
    fn hears(&self, host: &str, concern: &Concern) -> bool {
        match concern.topic() {
            Topic::Host(id) => id == host,
            topic => self.told.follows(&topic),
        }
    }
}

#[test]
fn changes_lead_to_what_all_intents_are() {
    let (cloud, mut rng) = (cloud(), StdRng::seed_from_u64(13));
    let mut state = State::default();
    let mut tx = Tx::new(&mut state, 0);
    layout(&mut tx);
    tx.finish().unwrap();
    let mut followers: BTreeMap<&str, Follower> = HOSTS
        .into_iter()
        .map(|host| {
            let letter = all(&state, host, &cloud).unwrap();
            let follower = Follower {
                told: letter.told,
                intents: letter.intents,
                waiting: BTreeSet::new(),
            };
            (host, follower)
        })
        .collect();
    let (mut sent, mut silent) = (0, 0);
    for number in 0..1500 {
        let mut tx = Tx::new(&mut state, 0);
        match rng.random_bool(0.1) {
            true => reroute(&mut tx, &mut rng),
            false => step(&mut tx, &mut rng, number),
        }
        let changes = tx.finish().unwrap();
        for (host, follower) in &mut followers {
            let heard: Vec<_> = changes
                .concerns
                .iter()
                .filter(|concern| follower.hears(host, concern))
                .cloned()
                .collect();
            follower.waiting.extend(heard);
            // Some hosts are slow: several changes are one message then.
            if follower.waiting.is_empty() || rng.random_bool(0.3) {
                continue;
            }
            let waiting = std::mem::take(&mut follower.waiting);
            let letter = super::changes(&state, host, &cloud, &follower.told, &waiting).unwrap();
            if letter.is_empty() {
                silent += 1;
            } else {
                sent += 1;
                deltas::apply(&mut follower.intents, letter.intents).unwrap();
                follower.told = letter.told;
            }
            let anew = all(&state, host, &cloud).unwrap();
            assert_eq!(
                normal(follower.intents.clone()),
                normal(anew.intents),
                "step {number}, {host}"
            );
        }
    }
    assert!(sent > 1000 && silent > 20, "{sent} sent, {silent} silent");
}

#[test]
fn one_more_member_of_a_large_group_is_a_small_message() {
    let (cloud, mut rng) = (cloud(), StdRng::seed_from_u64(1));
    let mut state = State::default();
    let mut tx = Tx::new(&mut state, 0);
    layout(&mut tx);
    let own = group_id("vpc-0", 0);
    tx.put(SecurityGroupRule {
        id: "sgr-1".into(),
        account_id: "1".into(),
        region: "local-1".into(),
        group_id: own.clone(),
        is_egress: false,
        protocol: -1,
        from_port: -1,
        to_port: -1,
        cidr: String::new(),
        referenced_group_id: Some(own.clone()),
        description: String::new(),
        created_at: 0,
        tags: Tags::new(),
    });
    for number in 0..1000 {
        launch(&mut tx, &mut rng, number);
        tx.update::<Instance>(&format!("i-{number:05}"), |row| row.host_id = "h-0".into());
        tx.update::<Incarnation>(&format!("i-{number:05}"), |row| row.host_id = "h-0".into());
        tx.update::<Volume>(&format!("vol-{number}"), |row| row.host_id = Some("h-0".into()));
        tx.update::<NetworkInterface>(&format!("eni-{number}"), |row| {
            row.vpc_id = "vpc-0".into();
            row.groups = vec![own.clone()];
        });
    }
    tx.finish().unwrap();
    let before = all(&state, "h-0", &cloud).unwrap();
    let mut tx = Tx::new(&mut state, 0);
    launch(&mut tx, &mut rng, 1000);
    tx.update::<Instance>("i-01000", |row| row.host_id = "h-1".into());
    tx.update::<Incarnation>("i-01000", |row| row.host_id = "h-1".into());
    tx.update::<NetworkInterface>("eni-1000", |row| {
        row.vpc_id = "vpc-0".into();
        row.groups = vec![own.clone()];
    });
    let concerns = tx.finish().unwrap().concerns;
    let letter = super::changes(&state, "h-0", &cloud, &before.told, &concerns).unwrap();
    let (small, whole) = (letter.intents.encoded_len(), before.intents.encoded_len());
    assert!(small < 200 && whole > 100_000, "{small} bytes of {whole}");
}

#[test]
fn a_host_that_is_forgotten_has_no_intents() {
    let mut state = State::default();
    let mut tx = Tx::new(&mut state, 0);
    layout(&mut tx);
    tx.finish().unwrap();
    let told = all(&state, "h-0", &cloud()).unwrap().told;
    let mut tx = Tx::new(&mut state, 0);
    tx.update::<Host>("h-0", |host| host.forgotten_at = Some(0));
    let concerns = tx.finish().unwrap().concerns;
    assert!(concerns.contains(&Concern::Host {
        host_id: "h-0".into()
    }));
    assert!(all(&state, "h-0", &cloud()).is_none());
    assert!(super::changes(&state, "h-0", &cloud(), &told, &concerns).is_none());
}
