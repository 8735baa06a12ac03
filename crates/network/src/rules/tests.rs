#![allow(clippy::unwrap_used)]

use std::net::Ipv4Addr;

use super::*;
use crate::NetworkError;
use crate::spec::{EniSpec, ImdsOptions, Peer, Protocol, RuleSpec, SecurityGroupSpec, VpcSpec};

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
    }
}

fn rules(spec: &VpcSpec) -> Rules {
    Rules::of(&Plan::new(spec).unwrap())
}

#[test]
fn the_vpc_tables() {
    insta::assert_snapshot!(rules(&spec()).replacement());
}

#[test]
fn the_root_table() {
    insta::assert_snapshot!(root_rules(&Plan::new(&spec()).unwrap()));
}

#[test]
fn a_membership_change_is_an_element() {
    let loaded = rules(&spec());
    assert_eq!(loaded.update_from(Some(&loaded)), None);
    let mut changed = spec();
    changed.security_groups[0].members = vec![Ipv4Addr::new(172, 31, 0, 11), Ipv4Addr::new(172, 31, 9, 9)];
    assert_eq!(
        rules(&changed).update_from(Some(&loaded)).unwrap(),
        "delete element inet vpc sg-00000000000000001-members { 172.31.0.10 }\n\
         add element inet vpc sg-00000000000000001-members { 172.31.9.9 }\n"
    );
    changed.security_groups[0].ingress.pop();
    changed.security_groups[0].ingress.pop();
    let text = rules(&changed).update_from(Some(&loaded)).unwrap();
    assert!(text.starts_with("table inet vpc\ndelete table inet vpc\n"));
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
