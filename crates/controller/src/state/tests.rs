//! Random transactions on the state and on a model of it that has no indexes and looks at everything each time.

use std::collections::BTreeMap;

use hearth_api::InstanceState;
use hearth_api::agent::instance_intent::Desired;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::noun::keep_tags;
use super::*;
use crate::catalog::volume_types::VolumeSpec;

const STEPS: u32 = 100_000;
const REGIONS: [&str; 2] = ["local-1", "local-2"];

/// Objects by kind and id.
type Model = BTreeMap<(&'static str, String), Object>;

/// One object, with its references and unique keys as the nouns' documentation says, not as their declarations do.
#[derive(Debug, Clone, PartialEq)]
enum Object {
    Host(Host),
    Image(Box<Image>),
    Reservation(Reservation),
    Instance(Box<Instance>),
    Incarnation(Incarnation),
    Volume(Box<Volume>),
    KeyPair(KeyPair),
    Group(SecurityGroup),
    Vpc(Vpc),
}

impl Object {
    fn name(&self) -> (&'static str, String) {
        match self {
            Self::Host(o) => (Host::KIND, o.id.clone()),
            Self::Image(o) => (Image::KIND, o.id.clone()),
            Self::Reservation(o) => (Reservation::KIND, o.id.clone()),
            Self::Instance(o) => (Instance::KIND, o.id.clone()),
            Self::Incarnation(o) => (Incarnation::KIND, o.instance_id.clone()),
            Self::Volume(o) => (Volume::KIND, o.id.clone()),
            Self::KeyPair(o) => (KeyPair::KIND, o.id.clone()),
            Self::Group(o) => (SecurityGroup::KIND, o.id.clone()),
            Self::Vpc(o) => (Vpc::KIND, o.id.clone()),
        }
    }

    fn refers(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Instance(o) => vec![
                (Host::KIND, o.host_id.clone()),
                (Reservation::KIND, o.reservation_id.clone()),
            ],
            Self::Incarnation(o) => vec![
                (Host::KIND, o.host_id.clone()),
                (Instance::KIND, o.instance_id.clone()),
            ],
            Self::Volume(o) => {
                let instance = o.instance_id().map(|id| (Instance::KIND, id.to_owned()));
                let host = o.host_id.clone().map(|id| (Host::KIND, id));
                let image = o.image_id.clone().map(|id| (Image::KIND, id));
                instance.into_iter().chain(host).chain(image).collect()
            }
            Self::Group(o) => vec![(Vpc::KIND, o.vpc_id.clone())],
            Self::Host(_) | Self::Image(_) | Self::Reservation(_) | Self::KeyPair(_) | Self::Vpc(_) => {
                Vec::new()
            }
        }
    }

    /// Who owns it, and whether an account may use it that does not.
    fn belongs(&self, account: &str) -> (&str, bool) {
        match self {
            Self::Host(_) | Self::Incarnation(_) => ("", false),
            Self::Image(o) => (&o.account_id, o.is_public || o.shared_with.contains(account)),
            Self::Reservation(o) => (&o.account_id, false),
            Self::Instance(o) => (&o.account_id, false),
            Self::Volume(o) => (&o.account_id, false),
            Self::KeyPair(o) => (&o.account_id, false),
            Self::Group(o) => (&o.account_id, false),
            Self::Vpc(o) => (&o.account_id, false),
        }
    }

    /// Where it is; empty: nowhere in particular.
    fn region(&self) -> &str {
        match self {
            Self::Host(_) | Self::Incarnation(_) => "",
            Self::Image(o) => &o.region,
            Self::Reservation(o) => &o.region,
            Self::Instance(o) => &o.region,
            Self::Volume(o) => &o.region,
            Self::KeyPair(o) => &o.region,
            Self::Group(o) => &o.region,
            Self::Vpc(o) => &o.region,
        }
    }

    fn unique(&self) -> Option<String> {
        match self {
            Self::Image(o) => {
                (o.state == AVAILABLE).then(|| format!("image {} {} {}", o.account_id, o.region, o.name))
            }
            Self::KeyPair(o) => Some(format!("key {} {} {}", o.account_id, o.region, o.name)),
            Self::Vpc(o) => o.is_default.then(|| format!("vpc {} {}", o.account_id, o.region)),
            _ => None,
        }
    }

    fn put(self, tx: &mut Tx<'_>) {
        match self {
            Self::Host(o) => tx.put(o),
            Self::Image(o) => tx.put(*o),
            Self::Reservation(o) => tx.put(o),
            Self::Instance(o) => tx.put(*o),
            Self::Incarnation(o) => tx.put(o),
            Self::Volume(o) => tx.put(*o),
            Self::KeyPair(o) => tx.put(o),
            Self::Group(o) => tx.put(o),
            Self::Vpc(o) => tx.put(o),
        }
    }

    fn is_in(&self, state: &State) -> bool {
        match self {
            Self::Host(o) => state.get(&o.id) == Some(o),
            Self::Image(o) => state.get::<Image>(&o.id) == Some(o.as_ref()),
            Self::Reservation(o) => state.get(&o.id) == Some(o),
            Self::Instance(o) => state.get::<Instance>(&o.id) == Some(o.as_ref()),
            Self::Incarnation(o) => state.get(&o.instance_id) == Some(o),
            Self::Volume(o) => state.get::<Volume>(&o.id) == Some(o.as_ref()),
            Self::KeyPair(o) => state.get(&o.id) == Some(o),
            Self::Group(o) => state.get(&o.id) == Some(o),
            Self::Vpc(o) => state.get(&o.id) == Some(o),
        }
    }
}

const KINDS: [&str; 9] = [
    Host::KIND,
    Image::KIND,
    Reservation::KIND,
    Instance::KIND,
    Incarnation::KIND,
    Volume::KIND,
    KeyPair::KIND,
    SecurityGroup::KIND,
    Vpc::KIND,
];

fn remove(tx: &mut Tx<'_>, kind: &str, id: &str) {
    match kind {
        Host::KIND => tx.remove::<Host>(id),
        Image::KIND => tx.remove::<Image>(id),
        Reservation::KIND => tx.remove::<Reservation>(id),
        Instance::KIND => tx.remove::<Instance>(id),
        Incarnation::KIND => tx.remove::<Incarnation>(id),
        Volume::KIND => tx.remove::<Volume>(id),
        KeyPair::KIND => tx.remove::<KeyPair>(id),
        SecurityGroup::KIND => tx.remove::<SecurityGroup>(id),
        Vpc::KIND => tx.remove::<Vpc>(id),
        _ => unreachable!("{kind}"),
    };
}

fn pick(rng: &mut StdRng, prefix: &str, count: u32) -> String {
    format!("{prefix}-{}", rng.random_range(0..count))
}

fn tags(rng: &mut StdRng) -> Tags {
    let count = rng.random_range(0..3);
    (0..count)
        .map(|_| (pick(rng, "key", 3), pick(rng, "value", 2)))
        .collect()
}

pub(crate) fn an_instance(id: &str, host_id: &str, reservation_id: &str) -> Instance {
    Instance {
        id: id.to_owned(),
        account_id: "1".into(),
        region: "local-1".into(),
        reservation_id: reservation_id.to_owned(),
        ami_launch_index: 0,
        image_id: "ami-0".into(),
        instance_type: "t2.micro".into(),
        vcpus: 1,
        memory_mib: 1024,
        store: Vec::new(),
        store_run: 1,
        host_id: host_id.to_owned(),
        availability_zone: "local-1a".into(),
        key_name: String::new(),
        public_key: String::new(),
        user_data: None,
        client_token: String::new(),
        shutdown_behavior: SHUTDOWN_STOP.into(),
        http_tokens: "optional".into(),
        http_endpoint: "enabled".into(),
        http_hop_limit: 1,
        metadata_tags: "disabled".into(),
        auto_recovery: AUTO_RECOVERY_DEFAULT.into(),
        disable_api_stop: false,
        disable_api_termination: false,
        profile: None,
        public_address: false,
        launch_time: 0,
        desired: Desired::Running,
        run: 1,
        reboot: 0,
        force: false,
        imaging: false,
        state: InstanceState::Pending,
        state_since: 0,
        reason_code: String::new(),
        reason_message: String::new(),
        transition_reason: String::new(),
        terminated_at: None,
        tags: Tags::new(),
    }
}

/// Of the tests of instances' volumes, too.
pub(crate) fn an_image(id: &str) -> Image {
    Image {
        id: id.to_owned(),
        account_id: "1".into(),
        region: "local-1".into(),
        name: id.to_owned(),
        description: String::new(),
        state: AVAILABLE.into(),
        size: 1 << 20,
        digest: String::new(),
        snapshot: String::new(),
        encryption: None,
        devices: Vec::new(),
        store: Vec::new(),
        source: None,
        failure: String::new(),
        kernel_path: String::new(),
        boot_mode: hearth_image::BootMode::UefiPreferred,
        ena_support: false,
        sriov_net_support: false,
        is_public: false,
        shared_with: Default::default(),
        created_at: 0,
        tags: Tags::new(),
    }
}

pub(crate) fn a_host(id: &str) -> Host {
    Host {
        id: id.to_owned(),
        availability_zone: "local-1a".into(),
        enrolled_at: 0,
        forgotten_at: None,
        drain: None,
        silent_since: None,
    }
}

/// Blank, and nowhere.
pub(crate) fn a_volume(id: &str, size_gib: u64) -> Volume {
    Volume {
        id: id.to_owned(),
        account_id: "1".into(),
        region: "local-1".into(),
        attachment: None,
        epoch: 0,
        availability_zone: "local-1a".into(),
        host_id: None,
        image_id: None,
        snapshot_id: None,
        moved: None,
        known: Known::ByHost,
        is_made: false,
        encryption: None,
        spec: VolumeSpec::plain(size_gib),
        modification: None,
        auto_enable_io: false,
        created_at: 0,
        deleting: false,
        tags: Tags::new(),
    }
}

fn any(rng: &mut StdRng, kind: &str) -> Object {
    let account_id = rng.random_range(1..3).to_string();
    let region = if rng.random_ratio(3, 4) {
        REGIONS[0]
    } else {
        REGIONS[1]
    }
    .to_owned();
    match kind {
        Host::KIND => Object::Host(Host {
            enrolled_at: rng.random_range(0..9),
            ..a_host(&pick(rng, "h", 3))
        }),
        Image::KIND => Object::Image(Box::new(Image {
            account_id,
            region,
            name: pick(rng, "name", 2),
            state: if rng.random() { AVAILABLE } else { DEREGISTERED }.into(),
            size: rng.random_range(0..1000),
            ena_support: rng.random(),
            sriov_net_support: rng.random(),
            is_public: rng.random_ratio(1, 4),
            shared_with: (0..rng.random_range(0..2))
                .map(|_| rng.random_range(1..3).to_string())
                .collect(),
            tags: tags(rng),
            ..an_image(&pick(rng, "ami", 3))
        })),
        Reservation::KIND => Object::Reservation(Reservation {
            id: pick(rng, "r", 3),
            account_id,
            region,
            created_at: 0,
        }),
        Instance::KIND => {
            let (id, host, reservation) = (pick(rng, "i", 5), pick(rng, "h", 3), pick(rng, "r", 3));
            let states = InstanceState::ALL;
            Object::Instance(Box::new(Instance {
                account_id,
                region,
                state: states[rng.random_range(0..states.len())],
                tags: tags(rng),
                ..an_instance(&id, &host, &reservation)
            }))
        }
        Incarnation::KIND => {
            let instance_id = pick(rng, "i", 5);
            Object::Incarnation(Incarnation {
                id: instance_id.clone(),
                instance_id,
                host_id: pick(rng, "h", 3),
                run: rng.random_range(0..3),
                vcpus: rng.random_range(0..3),
                memory_mib: rng.random_range(0..3),
                store_gib: rng.random_range(0..3),
                is_left: false,
            })
        }
        Volume::KIND => Object::Volume(Box::new(Volume {
            account_id,
            region,
            attachment: rng.random::<bool>().then(|| {
                let instance = pick(rng, "i", 5);
                let progress = [Progress::Attached, Progress::Attaching, Progress::Busy];
                Attachment {
                    progress: progress[rng.random_range(0..progress.len())],
                    ..Attachment::first(&instance, "/dev/vda", rng.random(), 0)
                }
            }),
            epoch: rng.random_range(0..3),
            host_id: rng.random_ratio(2, 3).then(|| pick(rng, "h", 3)),
            image_id: rng.random::<bool>().then(|| pick(rng, "ami", 3)),
            tags: tags(rng),
            ..a_volume(&pick(rng, "vol", 5), rng.random_range(0..100))
        })),
        KeyPair::KIND => Object::KeyPair(KeyPair {
            id: pick(rng, "key", 3),
            account_id,
            region,
            name: pick(rng, "name", 3),
            key_type: "rsa".into(),
            fingerprint: String::new(),
            public_key: String::new(),
            created_at: 0,
            tags: tags(rng),
        }),
        SecurityGroup::KIND => Object::Group(SecurityGroup {
            id: pick(rng, "sg", 3),
            account_id,
            region,
            vpc_id: pick(rng, "vpc", 2),
            name: pick(rng, "Name", 2),
            description: String::new(),
            created_at: 0,
            tags: tags(rng),
        }),
        _ => Object::Vpc(Vpc {
            id: pick(rng, "vpc", 2),
            account_id,
            region,
            cidr: "10.0.0.0/16".parse().unwrap(),
            is_default: rng.random(),
            dns_support: true,
            dns_hostnames: true,
            created_at: 0,
            tags: tags(rng),
        }),
    }
}

/// Whether a model is one that the state may be.
fn holds(model: &Model) -> bool {
    let mut keys: Vec<String> = model.values().filter_map(Object::unique).collect();
    let count = keys.len();
    keys.sort();
    keys.dedup();
    // What is in a region refers to what is in the same, or in none.
    let refers = |object: &Object| {
        let regions = |name| Some((object.region(), model.get(&name)?.region()));
        let is_near = |(own, other): (&str, &str)| own.is_empty() || other.is_empty() || own == other;
        let mut names = object.refers().into_iter();
        names.all(|name| regions(name).is_some_and(is_near))
    };
    keys.len() == count && model.values().all(refers)
}

#[test]
fn random_transactions_do_what_they_do_to_a_plain_model() {
    let mut rng = StdRng::seed_from_u64(13);
    let (mut state, mut model) = (State::default(), Model::new());
    let (mut done, mut refused) = (0, 0);
    for step in 0..STEPS {
        // What a snapshot shares is copied when it is changed; without one, all is changed in place.
        let before = step.is_multiple_of(16).then(|| state.clone());
        let mut wanted = model.clone();
        let mut tx = Tx::new(&mut state, i64::from(step));
        // A unique key that is taken on the way is refused, although it might be free at the end.
        let mut taken = false;
        for _ in 0..rng.random_range(1..5) {
            let kind = KINDS[rng.random_range(0..KINDS.len())];
            if rng.random_ratio(1, 3) {
                let (_, id) = any(&mut rng, kind).name();
                wanted.remove(&(kind, id.clone()));
                remove(&mut tx, kind, &id);
            } else {
                let object = any(&mut rng, kind);
                let key = object.unique();
                let name = object.name();
                let others = wanted.iter().filter(|(other, _)| **other != name);
                if key.is_some() && others.into_iter().any(|(_, other)| other.unique() == key) {
                    taken = true;
                } else {
                    wanted.insert(name, object.clone());
                }
                object.put(&mut tx);
            }
        }
        let is_dropped = rng.random_ratio(1, 10);
        match (!is_dropped).then(|| tx.finish()) {
            Some(Ok(changes)) => {
                assert!(!taken && holds(&wanted), "step {step}: {changes:?}");
                replay(&state, &changes);
                model = wanted;
                done += 1;
            }
            undone => {
                if let Some(Err(violation)) = undone {
                    assert!(taken || !holds(&wanted), "step {step}: {violation}");
                    refused += 1;
                }
                if let Some(before) = before {
                    assert_eq!(
                        format!("{before:?}"),
                        format!("{state:?}"),
                        "step {step}: it is undone"
                    );
                }
            }
        }
        if step.is_multiple_of(64) {
            state.check();
            let count: usize = KINDS.iter().map(|kind| of_kind(&state, kind)).sum();
            assert_eq!(count, model.len());
            assert!(model.values().all(|object| object.is_in(&state)), "step {step}");
        }
        if step.is_multiple_of(1024) {
            scopes_are_apart(&model, &state);
        }
    }
    // Both ways are well trodden.
    assert!(
        done > STEPS / 10 && refused > STEPS / 10,
        "{done} done, {refused} refused"
    );
}

/// Each account sees what is its own, the operator's or shared with it, in the region that it looks at, by whatever way it
/// looks; and changes its own there alone.
fn scopes_are_apart(model: &Model, state: &State) {
    let accounts = ["1", "2", ""].into_iter();
    let scopes = accounts.flat_map(|account| ["", REGIONS[0], REGIONS[1]].map(|region| (account, region)));
    for (account, region) in scopes {
        let scope = Scope::new(account, region);
        let mut seen = state.seen_by(scope.clone());
        let is_near = |object: &Object| region.is_empty() || ["", region].contains(&object.region());
        for object in model.values() {
            let (owner, is_shared) = object.belongs(account);
            let owns = (owner.is_empty() || owner == account) && is_near(object);
            let is_seen = owns || is_shared && is_near(object);
            assert_eq!(object.is_in(&seen), is_seen, "{scope:?}: {object:?}");
            if let Object::KeyPair(pair) = object {
                let of = Scope::new(&pair.account_id, &pair.region);
                let named = seen.key_pair_named(&of, &pair.name).is_some();
                let listed = seen.all::<KeyPair>().any(|listed| listed.id == pair.id);
                assert_eq!((named, listed), (owns, owns));
                assert_eq!(seen.tags(Kind::KeyPair, &pair.id).is_some(), owns);
            }
            if let Object::Image(image) = object {
                let listed = seen.by(&Image::BY_STATE, &image.state);
                assert_eq!(listed.into_iter().any(|listed| listed.id == image.id), is_seen);
                assert_eq!(seen.own::<Image>(&image.id).is_some(), owns);
                let tags = seen.tags(Kind::Image, &image.id);
                assert_eq!(tags.is_some(), owns && image.is_available());
            }
        }
        let foreign: Vec<String> = model
            .values()
            .filter_map(|object| match object {
                Object::Image(image) if image.account_id != account || !is_near(object) => {
                    Some(image.id.clone())
                }
                _ => None,
            })
            .collect();
        let mut tx = Tx::new(&mut seen, 0);
        for id in foreign {
            assert!(
                !tx.update::<Image>(&id, |image| image.size += 1),
                "{scope:?} changes {id}"
            );
            assert!(!tx.remove::<Image>(&id), "{scope:?} removes {id}");
        }
    }
}

fn of_kind(state: &State, kind: &str) -> usize {
    match kind {
        Host::KIND => state.count::<Host>(),
        Image::KIND => state.count::<Image>(),
        Reservation::KIND => state.count::<Reservation>(),
        Instance::KIND => state.count::<Instance>(),
        Incarnation::KIND => state.count::<Incarnation>(),
        Volume::KIND => state.count::<Volume>(),
        KeyPair::KIND => state.count::<KeyPair>(),
        SecurityGroup::KIND => state.count::<SecurityGroup>(),
        _ => state.count::<Vpc>(),
    }
}

/// What a database has after the changes is what the state has.
fn replay(after: &State, changes: &Changes) {
    for change in &changes.objects {
        match change {
            Change::Put(row) => {
                assert_eq!(after.encode(&row.kind, &row.id).unwrap().as_ref(), Some(row));
                assert_eq!(row.version, after.sequence());
                let mut loaded = State::default();
                loaded.load(row).unwrap();
                let mut again = loaded.encode(&row.kind, &row.id).unwrap().unwrap();
                again.version = row.version;
                assert_eq!(again, *row);
            }
            Change::Removed { kind, id } => assert!(!after.exists(kind, id)),
        }
    }
}

#[test]
fn a_transaction_that_is_dropped_leaves_a_snapshot_as_it_was() {
    let mut state = State::default();
    let mut tx = Tx::new(&mut state, 0);
    tx.put(a_host("h-0"));
    tx.finish().unwrap();
    let snapshot = state.clone();
    let mut next = state.clone();
    let mut tx = Tx::new(&mut next, 1);
    tx.update::<Host>("h-0", |host| host.enrolled_at = 7);
    assert_eq!(
        tx.get::<Host>("h-0").unwrap().enrolled_at,
        7,
        "it reads its own changes"
    );
    drop(tx);
    assert_eq!(snapshot.get::<Host>("h-0").unwrap().enrolled_at, 0);
}

#[test]
fn tags_are_found_by_index_and_by_kind() {
    let mut state = State::default();
    let mut tx = Tx::new(&mut state, 0);
    tx.put(a_host("h-0"));
    tx.put(Reservation {
        id: "r-0".into(),
        account_id: "1".into(),
        region: "local-1".into(),
        created_at: 0,
    });
    tx.put(an_instance("i-0", "h-0", "r-0"));
    let tag = |key: &str, value: &str| hearth_api::v1::Tag {
        key: key.into(),
        value: value.into(),
    };
    assert!(tx.retag(hearth_api::Kind::Instance, "i-0", |tags| {
        tags.extend(keep_tags(&[tag("a", "1"), tag("b", "")]));
    }));
    assert!(!tx.retag(hearth_api::Kind::Reservation, "r-0", Tags::clear));
    tx.finish().unwrap();
    let by = |k: &str, v: &str| state.by(&Instance::BY_TAG, &key(&[k, v])).count();
    assert_eq!((by("a", "1"), by("b", ""), by("a", "")), (1, 1, 0));
    assert_eq!(state.tagged().count(), 1);
    state.check();
}

#[test]
fn what_an_object_owns_goes_with_it() {
    let group = |id: &str| SecurityGroup {
        id: id.into(),
        account_id: "1".into(),
        region: "local-1".into(),
        vpc_id: "vpc-0".into(),
        name: id.into(),
        description: String::new(),
        created_at: 0,
        tags: Tags::new(),
    };
    let rule = |id: &str, group: &str, referenced: Option<&str>| SecurityGroupRule {
        id: id.into(),
        account_id: "1".into(),
        region: "local-1".into(),
        group_id: group.into(),
        is_egress: false,
        protocol: -1,
        from_port: -1,
        to_port: -1,
        cidr: String::new(),
        referenced_group_id: referenced.map(str::to_owned),
        description: String::new(),
        created_at: 0,
        tags: Tags::new(),
    };
    let mut state = State::default();
    let mut tx = Tx::new(&mut state, 0);
    tx.put(Vpc {
        id: "vpc-0".into(),
        account_id: "1".into(),
        region: "local-1".into(),
        cidr: "10.0.0.0/16".parse().unwrap(),
        is_default: true,
        dns_support: true,
        dns_hostnames: true,
        created_at: 0,
        tags: Tags::new(),
    });
    tx.put(group("sg-a"));
    tx.put(group("sg-b"));
    tx.put(rule("sgr-1", "sg-a", None));
    tx.put(rule("sgr-2", "sg-a", Some("sg-a")));
    tx.put(rule("sgr-3", "sg-b", None));
    tx.finish().unwrap();
    state.check();
    let mut next = state.clone();
    let mut tx = Tx::new(&mut next, 1);
    assert!(tx.remove::<SecurityGroup>("sg-a"));
    let changes = tx.finish().unwrap();
    replay(&next, &changes);
    next.check();
    let removed = |kind: &'static str, id: &str| Change::Removed { kind, id: id.into() };
    assert_eq!(
        changes.objects,
        [
            removed("security-group", "sg-a"),
            removed("security-group-rule", "sgr-1"),
            removed("security-group-rule", "sgr-2"),
        ]
    );
    // Agents hear of the rules that went.
    assert!(changes.concerns.contains(&Concern::Rules {
        group_id: "sg-a".into()
    }));
    // The reference of another's object still holds what it names.
    let mut tx = Tx::new(&mut state, 2);
    tx.put(rule("sgr-4", "sg-b", Some("sg-a")));
    tx.finish().unwrap();
    let mut tx = Tx::new(&mut state, 3);
    tx.remove::<SecurityGroup>("sg-a");
    assert!(matches!(tx.finish(), Err(Violation::Referred { .. })));
}

#[test]
fn volumes_and_interfaces_of_before_attachments_are_read() {
    let volume = |instance: &str| {
        let body = format!(
            r#"{{"id":"vol-1","account_id":"1","instance_id":{instance},"host_id":"h-0","image_id":"ami-1",
            "device_name":"/dev/vda","size_gib":8,"delete_on_termination":false,"created_at":7,"tags":{{"a":"b"}}}}"#
        );
        serde_json::from_str::<Volume>(&body).unwrap()
    };
    let attached = volume(r#""i-1""#);
    let attachment = Attachment::first("i-1", "/dev/vda", false, 7);
    assert_eq!((attached.attachment, attached.epoch), (Some(attachment), 1));
    assert_eq!((attached.spec, attached.deleting), (VolumeSpec::plain(8), false));
    assert_eq!(
        (attached.host_id.as_deref(), attached.image_id.as_deref()),
        (Some("h-0"), Some("ami-1"))
    );
    let kept = volume("null");
    assert_eq!((&kept.attachment, kept.epoch), (&None, 1));
    let interface = r#"{"id":"eni-1","account_id":"1","instance_id":"i-1","vpc_id":"vpc-1","subnet_id":"subnet-1",
        "mac_address":"02:00:00:00:00:01","private_ip":"10.0.0.4","public_ip":null,"groups":["sg-1"],"tags":{}}"#;
    let interface: NetworkInterface = serde_json::from_str(interface).unwrap();
    assert_eq!(
        interface.attachment,
        Some(Attachment::first("i-1", PRIMARY, true, 0))
    );
    // What is written now is read as it was.
    let again: NetworkInterface = serde_json::from_str(&serde_json::to_string(&interface).unwrap()).unwrap();
    assert_eq!(again, interface);
    let never = Volume {
        epoch: 0,
        ..volume("null")
    };
    let again: Volume = serde_json::from_str(&serde_json::to_string(&never).unwrap()).unwrap();
    assert_eq!(again.epoch, 0);
    // A volume of before is in its host's zone.
    let mut state = State::default();
    let mut tx = Tx::new(&mut state, 0);
    tx.put(a_host("h-0"));
    tx.finish().unwrap();
    assert_eq!(state.zone_of(&kept), "local-1a");
    assert_eq!(state.zone_of(&a_volume("vol-2", 1)), "local-1a");
}

/// It was stopped for an image while a volume was on its way to it, and runs again.
#[test]
fn a_volume_that_was_on_its_way_comes_when_its_instance_runs_after_an_image() {
    let mut state = State::default();
    let mut tx = Tx::new(&mut state, 5);
    tx.put(a_host("h-0"));
    tx.put(a_host("h-1"));
    tx.put(Reservation {
        id: "r-0".into(),
        account_id: "1".into(),
        region: "local-1".into(),
        created_at: 0,
    });
    tx.put(Instance {
        state: InstanceState::Stopped,
        desired: Desired::Stopped,
        imaging: true,
        ..an_instance("i-0", "h-1", "r-0")
    });
    tx.put(Volume {
        attachment: Some(Attachment::first("i-0", "/dev/sdf", false, 0)),
        host_id: Some("h-0".into()),
        ..a_volume("vol-0", 2)
    });
    tx.run_after_image("i-0");
    tx.finish().unwrap();
    state.check();
    let instance: &Instance = state.get("i-0").unwrap();
    assert_eq!(instance.state, InstanceState::Pending);
    assert!(state.awaits_volumes(instance) && state.has_moves(instance));
    let id = state.storing("vol-0").unwrap().id.clone();
    let mut tx = Tx::new(&mut state, 6);
    let disk = Disk {
        name: "snap-1".into(),
        size: 2 << 30,
        digest: String::new(),
    };
    tx.complete_move(&id, disk);
    tx.finish().unwrap();
    state.check();
    let volume: &Volume = state.get("vol-0").unwrap();
    assert_eq!((volume.host_id.as_deref(), volume.epoch), (Some("h-1"), 1));
    assert_eq!(
        (&volume.known, volume.base_id()),
        (&Known::ByHost, Some(id.as_str()))
    );
    assert!(state.old_copy("vol-0", "h-0").is_some() && state.gib_on("h-0") == 2);
}

#[test]
fn claims_of_before_instances_moved_are_incarnations() {
    let claim = r#"{"instance_id":"i-1","host_id":"h-0","vcpus":2,"memory_mib":4096}"#;
    let life: Incarnation = serde_json::from_str(claim).unwrap();
    // The row that is there is written again.
    assert_eq!((life.id(), Incarnation::KIND), ("i-1", "claim"));
    assert_eq!((life.vcpus, life.memory_mib, life.is_left), (2, 4096, false));
    let again: Incarnation = serde_json::from_str(&serde_json::to_string(&life).unwrap()).unwrap();
    assert_eq!(again, life);
}

/// What waits for a host ends with the run, whichever way the transactions before it went.
#[test]
fn volumes_are_settled_when_their_instance_stops() {
    use Progress::{Attached, Attaching, Busy, Detaching, Forced};
    for progress in [Attached, Attaching, Detaching, Busy, Forced] {
        let mut state = State::default();
        let mut tx = Tx::new(&mut state, 5);
        tx.put(a_host("h-0"));
        tx.put(Reservation {
            id: "r-0".into(),
            account_id: "1".into(),
            region: "local-1".into(),
            created_at: 0,
        });
        tx.put(an_instance("i-0", "h-0", "r-0"));
        tx.put(Volume {
            attachment: Some(Attachment {
                progress,
                ..Attachment::first("i-0", "/dev/sdf", true, 0)
            }),
            host_id: Some("h-0".into()),
            modification: Some(Modification {
                state: ModificationState::Modifying,
                original: VolumeSpec::plain(1),
                target: VolumeSpec::plain(2),
                started_at: 0,
                ended_at: None,
                message: "no room yet".into(),
                earlier: Vec::new(),
            }),
            ..a_volume("vol-0", 2)
        });
        tx.settle_volumes("i-0");
        tx.finish().unwrap();
        state.check();
        let volume: &Volume = state.get("vol-0").unwrap();
        let attached = volume.attachment.as_ref().map(|attachment| attachment.progress);
        assert_eq!(
            attached,
            (!progress.is_ending()).then_some(Attached),
            "{progress:?}"
        );
        assert_eq!(volume.told_gib(), 2);
        let modification = volume.modification.as_ref().unwrap();
        assert_eq!(
            (modification.state, modification.ended_at),
            (ModificationState::Completed, Some(5))
        );
        assert!(!state.any_by(&Volume::BY_UNSETTLED, Volume::UNSETTLED));
    }
}

fn key_pair(account_id: &str, number: usize) -> KeyPair {
    KeyPair {
        id: format!("key-{account_id}-{number}"),
        region: "local-1".into(),
        account_id: account_id.into(),
        name: number.to_string(),
        key_type: "rsa".into(),
        fingerprint: String::new(),
        public_key: String::new(),
        created_at: 0,
        tags: Tags::new(),
    }
}

#[test]
fn an_account_has_as_many_as_its_bound_and_leaves_those_of_others_alone() {
    let most = KeyPair::BOUND.unwrap().most;
    let mut state = State::default();
    let mut tx = Tx::new(&mut state, 0);
    (0..most).for_each(|number| tx.put(key_pair("1", number)));
    assert_eq!(tx.exceeded(), None);
    tx.finish().unwrap();
    for (account_id, number, exceeds) in [("1", most, true), ("1", 0, false), ("2", 0, false)] {
        let mut tx = Tx::new(&mut state, 0);
        tx.put(key_pair(account_id, number));
        let exceeded = tx.exceeded().map(|bound| bound.what);
        assert_eq!(exceeded, exceeds.then_some("key pairs"), "{account_id} {number}");
    }
    assert_eq!(state.count_of::<KeyPair>("1"), most);
    assert_eq!(state.count_of::<KeyPair>("2"), 0);
    state.check();
}

#[test]
fn an_account_has_as_many_tags_as_their_bound_whatever_they_are_on() {
    let each = 50;
    let tags: Tags = (0..each).map(|key| (key.to_string(), String::new())).collect();
    let mut state = State::default();
    let mut tx = Tx::new(&mut state, 0);
    for number in 0..TAGS.most / each {
        let tags = tags.clone();
        tx.put(KeyPair {
            tags,
            ..key_pair("1", number)
        });
    }
    tx.put(key_pair("1", TAGS.most));
    tx.put(key_pair("2", 0));
    assert_eq!(tx.exceeded(), None);
    tx.finish().unwrap();
    assert_eq!(state.count_of_tags("1"), TAGS.most as u64);
    for (account_id, key, exceeds) in [("1", TAGS.most, true), ("2", 0, false)] {
        let mut tx = Tx::new(&mut state, 0);
        let id = key_pair(account_id, key).id;
        tx.retag(Kind::KeyPair, &id, |tags| {
            drop(tags.insert("one more".into(), String::new()))
        });
        assert_eq!(tx.exceeded().is_some(), exceeds, "{account_id}");
    }
    // Who has too many may take some away.
    let mut tx = Tx::new(&mut state, 0);
    tx.retag(Kind::KeyPair, &key_pair("1", 0).id, |tags| drop(tags.pop_first()));
    assert_eq!(tx.exceeded(), None);
}
