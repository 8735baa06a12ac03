#![allow(clippy::unwrap_used)]

use std::net::Ipv4Addr;

use super::table::Batch;
use super::*;
use crate::NetworkError;
use crate::spec::{EniSpec, ImdsOptions, Peer, Protocol, RuleSpec, SecurityGroupSpec, SubnetSpec, VpcSpec};

fn rule(protocol: Protocol, peer: Peer) -> RuleSpec {
    RuleSpec { protocol, peer }
}

fn cidr(text: &str) -> Peer {
    Peer::Cidr(text.parse().unwrap())
}

fn eni(host: u8) -> EniSpec {
    EniSpec {
        eni_id: format!("eni-{host:02x}bcdef0123456789"),
        mac: [6, 0, 0, 0, 0, host],
        private_ip: Ipv4Addr::new(172, 31, 0, host),
        subnet: "172.31.0.0/20".parse().unwrap(),
        public_ip: Some(Ipv4Addr::new(198, 18, 0, host)),
        security_group_ids: vec!["sg-00000000000000001".into()],
        hostname: "h".into(),
        imds: ImdsOptions {
            enabled: true,
            tokens_required: false,
            hop_limit: 1,
        },
    }
}

fn spec() -> VpcSpec {
    let one: String = "sg-00000000000000001".into();
    VpcSpec {
        vpc_id: "vpc-0123456789abcdef0".into(),
        cidr: "172.31.0.0/16".parse().unwrap(),
        public_pool: "198.18.0.0/24".parse().unwrap(),
        enis: vec![
            EniSpec {
                public_ip: None,
                ..eni(10)
            },
            eni(11),
        ],
        security_groups: vec![SecurityGroupSpec {
            group_id: one.clone(),
            members: vec![Ipv4Addr::new(172, 31, 0, 10), Ipv4Addr::new(172, 31, 0, 11)],
            ingress: vec![
                rule(Protocol::All, Peer::Group(one)),
                rule(Protocol::Tcp { from: 22, to: 22 }, cidr("0.0.0.0/0")),
                rule(Protocol::Udp { from: 1000, to: 2000 }, cidr("10.1.2.3/8")),
                rule(
                    Protocol::Icmp {
                        kind: Some(8),
                        code: None,
                    },
                    cidr("0.0.0.0/0"),
                ),
                rule(
                    Protocol::Icmp {
                        kind: Some(3),
                        code: Some(4),
                    },
                    cidr("0.0.0.0/0"),
                ),
                rule(Protocol::Other(47), cidr("192.0.2.1/32")),
                rule(Protocol::All, Peer::Group("sg-00000000000000099".into())),
            ],
            egress: vec![rule(Protocol::All, cidr("0.0.0.0/0"))],
        }],
        subnets: vec![SubnetSpec {
            subnet_id: "subnet-0123456789abcdef0".into(),
            cidr: "172.31.0.0/20".parse().unwrap(),
            internet: vec!["0.0.0.0/0".parse().unwrap()],
        }],
        dns: true,
    }
}

fn rules(spec: &VpcSpec) -> Rules {
    Rules::of_vpc(
        &Plan::new(spec).unwrap(),
        ConnectionShares::of(262_144),
        &BTreeSet::new(),
    )
}

/// One item a line.
fn lines(batch: &Batch) -> String {
    let items = batch.items.iter().map(|item| {
        // In the order of names, whatever another crate of the workspace wants of serde_json's maps.
        let mut item = serde_json::to_value(item).unwrap();
        item.sort_all_objects();
        item.to_string()
    });
    items.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_vpc_tables() {
    let (batch, replaces) = rules(&spec()).update_from(None).unwrap();
    assert!(replaces);
    insta::assert_snapshot!(lines(&batch));
}

#[test]
fn the_root_table() {
    let reach = Reach::new(
        ["203.0.113.0/24".parse().unwrap()].into_iter(),
        &["10.9.0.0/16".parse().unwrap()],
    );
    let (batch, _) = Rules::of_root(&Plan::new(&spec()).unwrap(), &reach)
        .update_from(None)
        .unwrap();
    insta::assert_snapshot!(lines(&batch));
}

#[test]
fn the_guard_of_forwarding() {
    let (batch, _) = Rules::guard().update_from(None).unwrap();
    insta::assert_snapshot!(lines(&batch));
}

#[test]
fn a_membership_change_is_an_element() {
    let loaded = rules(&spec());
    assert_eq!(loaded.update_from(Some(&loaded)), None);
    let mut changed = spec();
    changed.security_groups[0].members = vec![Ipv4Addr::new(172, 31, 0, 11), Ipv4Addr::new(172, 31, 9, 9)];
    let (batch, replaces) = rules(&changed).update_from(Some(&loaded)).unwrap();
    assert!(!replaces);
    let set = r#""family":"inet","name":"sg-00000000000000001-members","table":"vpc""#;
    assert_eq!(
        lines(&batch),
        format!(
            "{{\"delete\":{{\"element\":{{\"elem\":[\"172.31.0.10\"],{set}}}}}}}\n\
             {{\"add\":{{\"element\":{{\"elem\":[\"172.31.9.9\"],{set}}}}}}}"
        )
    );
    changed.security_groups[0].ingress.pop();
    changed.security_groups[0].ingress.pop();
    let (batch, replaces) = rules(&changed).update_from(Some(&loaded)).unwrap();
    assert!(replaces);
    // The `arp` table stays.
    assert!(!lines(&batch).contains("arp"));
}

/// What `nft` would list of the wanted tables.
fn listing(rules: &Rules) -> Vec<serde_json::Value> {
    let (batch, _) = rules.update_from(None).unwrap();
    let items = batch.items.iter().map(|item| serde_json::to_value(item).unwrap());
    items
        .filter(|item| item.get("delete").is_none() && item.get("add").is_none())
        .collect()
}

#[test]
fn a_difference_is_found_and_named() {
    let mut spec = spec();
    // The elements of sets that change are loaded after their table, which the listing here leaves out.
    spec.security_groups[0].members.clear();
    spec.subnets[0].internet.clear();
    let wanted = rules(&spec);
    let difference = |listed: &[serde_json::Value]| compare::difference(&wanted.tables, listed).unwrap();
    let same = listing(&wanted);
    assert_eq!(difference(&same), None);
    assert_eq!(difference(&[]).unwrap(), "table vpc: no chain antispoof");
    // Each object is missed.
    for index in 0..same.len() {
        if same[index].get("table").is_none() {
            let mut listed = same.clone();
            let removed = listed.remove(index);
            assert!(difference(&listed).is_some(), "{removed} is not missed");
        }
    }
    let changed = |from: &str, to: &str| {
        let text = serde_json::to_string(&same).unwrap();
        let changed = text.replacen(from, to, 1);
        assert_ne!(text, changed);
        difference(&serde_json::from_str::<Vec<_>>(&changed).unwrap()).unwrap()
    };
    changed(r#""policy":"drop""#, r#""policy":"accept""#);
    changed(r#""prio":-450"#, r#""prio":-45"#);
    changed(r#""drop":null"#, r#""accept":null"#);
    changed("06:00:00:00:00:0a", "06:00:00:00:00:0c");
    changed("172.31.0.11", "172.31.0.12");
    let rule = changed(r#"{"range":[1000,2000]}"#, r#"{"range":[0,65535]}"#);
    assert!(
        rule.contains("chain sg-00000000000000001-in") && rule.contains("[0,65535]"),
        "{rule}"
    );
    // Objects that are not Hearth's.
    let stranger = r#"{"chain":{"family":"inet","table":"vpc","name":"stranger"}}"#;
    let mut listed = same.clone();
    listed.push(serde_json::from_str(stranger).unwrap());
    assert_eq!(
        difference(&listed).unwrap(),
        "table vpc: an unknown chain stranger"
    );
    let mut listed = same.clone();
    listed.push(serde_json::from_str(r#"{"table":{"family":"ip","name":"stranger"}}"#).unwrap());
    assert!(difference(&listed).unwrap().starts_with("an unknown table"));
}

#[test]
fn nothing_unchecked_becomes_a_rule() {
    let refused = |change: &dyn Fn(&mut VpcSpec)| {
        let mut spec = spec();
        change(&mut spec);
        match Plan::new(&spec) {
            Err(NetworkError::InvalidSpec { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    };
    let evil = "sg-1 { }; flush ruleset";
    refused(&|spec| spec.vpc_id = "../../etc/passwd".into());
    refused(&|spec| spec.security_groups[0].group_id = evil.into());
    refused(&|spec| spec.security_groups[0].ingress[0].peer = Peer::Group(evil.into()));
    refused(&|spec| spec.enis[0].security_group_ids = vec![evil.into()]);
    refused(&|spec| spec.enis[0].eni_id = "eni-0\"; drop".into());
    refused(&|spec| spec.enis[0].private_ip = spec.enis[1].private_ip);
    refused(&|spec| spec.enis[0].private_ip = Ipv4Addr::new(172, 31, 0, 1));
    refused(&|spec| spec.enis[0].public_ip = Some(Ipv4Addr::new(198, 18, 0, 1)));
    refused(&|spec| spec.enis[0].hostname = "a b".into());
    refused(&|spec| spec.cidr = "198.18.0.0/16".parse().unwrap());
    let upside_down = refused(&|spec| {
        spec.security_groups[0].ingress[0].protocol = Protocol::Tcp { from: 2, to: 1 };
    });
    assert_eq!(upside_down, "port range 2 to 1 is upside down");
}
