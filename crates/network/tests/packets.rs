//! Real packets through real rules: two guests of one VPC.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use common::{
    Guest, PATIENCE, ROUTER_MAC, SILENCE, TestHost, anywhere, cannot_run, echo_reply, eni, group, tcp,
    two_guests, udp_datagram,
};
use dhcproto::v4::{DhcpOption, Message, MessageType, OptionCode};
use dhcproto::{Decodable, Encodable};
use hearth_network::spec::{Peer, Protocol, RuleSpec, VpcSpec};

const ROUTER: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 1);

#[tokio::test(flavor = "multi_thread")]
async fn dhcp_arp_and_ping() {
    if cannot_run("dhcp_arp_and_ping") {
        return;
    }
    let mut host = TestHost::new().await;
    let (_spec, one, two) = two_guests(&mut host, None).await;
    tokio::task::spawn_blocking(move || {
        let offer = exchange(&one, MessageType::Discover, None);
        assert_eq!(offer.opts().msg_type(), Some(MessageType::Offer));
        assert_eq!(offer.yiaddr(), one.ip);
        let ack = exchange(&one, MessageType::Request, Some(one.ip));
        assert_eq!(ack.opts().msg_type(), Some(MessageType::Ack));
        let option = |code| ack.opts().get(code).cloned();
        assert_eq!(option(OptionCode::Router), Some(DhcpOption::Router(vec![ROUTER])));
        assert_eq!(
            option(OptionCode::Hostname),
            Some(DhcpOption::Hostname("ip-172-31-0-10".into()))
        );
        assert_eq!(
            option(OptionCode::DomainName),
            Some(DhcpOption::DomainName("ec2.internal".into()))
        );
        assert_eq!(
            option(OptionCode::InterfaceMtu),
            Some(DhcpOption::InterfaceMtu(1500))
        );
        let dns = vec![Ipv4Addr::new(172, 31, 0, 2)];
        assert_eq!(
            option(OptionCode::DomainNameServer),
            Some(DhcpOption::DomainNameServer(dns))
        );
        let nak = exchange(&one, MessageType::Request, Some(two.ip));
        assert_eq!(nak.opts().msg_type(), Some(MessageType::Nak));
        // Garbage is no reason to die.
        one.send(&one.udp(Ipv4Addr::BROADCAST, 68, 67, &[1, 2, 3]));
        assert_eq!(exchange(&one, MessageType::Discover, None).yiaddr(), one.ip);

        for target in [ROUTER, two.ip, Ipv4Addr::new(169, 254, 169, 254)] {
            one.send(&one.arp_request(one.mac, one.ip, target));
            assert_eq!(
                one.sees_arp_reply(target, PATIENCE),
                Some(ROUTER_MAC),
                "ARP for {target}"
            );
        }
        for (target, id) in [(ROUTER, 1), (Ipv4Addr::new(172, 31, 0, 2), 2)] {
            one.send(&one.ping(target, id));
            assert_eq!(one.receive(PATIENCE, echo_reply), Some(id), "ping of {target}");
        }
    })
    .await
    .unwrap();
}

fn exchange(guest: &Guest, kind: MessageType, asked: Option<Ipv4Addr>) -> Message {
    let mut message = Message::default();
    message.set_chaddr(&guest.mac).set_xid(rand::random());
    message.opts_mut().insert(DhcpOption::MessageType(kind));
    if let Some(asked) = asked {
        message.opts_mut().insert(DhcpOption::RequestedIpAddress(asked));
        message.opts_mut().insert(DhcpOption::ServerIdentifier(ROUTER));
    }
    let unnumbered = Guest {
        tap: guest.tap.try_clone().unwrap(),
        mac: guest.mac,
        ip: Ipv4Addr::UNSPECIFIED,
    };
    let mut frame = unnumbered.udp(Ipv4Addr::BROADCAST, 68, 67, &message.to_vec().unwrap());
    frame[..6].fill(0xff);
    guest.send(&frame);
    let payload = guest.receive(PATIENCE, |frame| match udp_datagram(frame)? {
        (from, _, 67, 68, payload) => {
            assert_eq!(from, ROUTER);
            Some(payload)
        }
        _ => None,
    });
    Message::from_bytes(&payload.expect("a DHCP answer")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_admit_drop_and_revoke() {
    if cannot_run("groups_admit_drop_and_revoke") {
        return;
    }
    let mut host = TestHost::new().await;
    let (mut spec, one, two) = two_guests(&mut host, None).await;
    // Not from everywhere: those connections would not be tracked.
    let vpc_only = || tcp(22, Peer::Cidr("172.31.0.0/16".parse().unwrap()));
    spec.security_groups[0].ingress = vec![vpc_only()];
    host.network.apply_vpc(&spec).await.unwrap();
    // Port 23 first: when the SYN to 22 has come, it would have, too.
    one.send(&one.syn(two.ip, 4000, 23));
    one.send(&one.syn(two.ip, 4001, 22));
    assert!(two.sees_only(4001, 4000), "port 23 was admitted");
    // The handshake goes on, and the connection is tracked as established.
    two.send(&two.syn_ack(one.ip, 22, 4001));
    assert!(one.sees_tcp(22, 4001));
    one.send(&one.ack(two.ip, 4001, 22, b""));
    assert!(two.sees_tcp(4001, 22));

    // A group rule: only `one` is a member.
    let members = group(2, &[one.ip], vec![]);
    let peer = Peer::Group(members.group_id.clone());
    spec.security_groups[0].ingress = vec![vpc_only(), tcp(80, peer)];
    spec.security_groups.push(members);
    host.network.apply_vpc(&spec).await.unwrap();
    two.send(&two.syn(one.ip, 4002, 80));
    two.send(&two.syn(one.ip, 4003, 22));
    assert!(one.sees_only(4003, 4002), "a stranger used the group rule");
    one.send(&one.syn(two.ip, 4004, 80));
    assert!(two.sees_tcp(4004, 80), "the member was refused");

    // Membership changes touch one element, and work the same.
    spec.security_groups[1].members = vec![two.ip];
    let before = Instant::now();
    host.network.apply_vpc(&spec).await.unwrap();
    eprintln!("a membership change: {:?}", before.elapsed());
    one.send(&one.syn(two.ip, 4005, 80));
    one.send(&one.syn(two.ip, 4006, 22));
    assert!(two.sees_only(4006, 4005), "a former member was admitted");
    two.send(&two.syn(one.ip, 4007, 80));
    assert!(one.sees_tcp(4007, 80));

    // Revoked: new connections stop at once, the tracked one goes on.
    spec.security_groups[0].ingress.remove(0);
    host.network.apply_vpc(&spec).await.unwrap();
    one.send(&one.syn(two.ip, 4008, 22));
    one.send(&one.ack(two.ip, 4001, 22, b"still there"));
    assert!(two.sees_only(4001, 4008), "a revoked rule admitted a connection");

    // An interface that the specification no longer has loses its TAP.
    spec.enis.pop();
    host.network.apply_vpc(&spec).await.unwrap();
    let links = common::run(&format!("ip -n {} -br link", spec.vpc_id));
    assert_eq!(links.matches("tap").count(), 1, "{links}");
}

#[tokio::test(flavor = "multi_thread")]
async fn spoofed_packets_are_dropped() {
    if cannot_run("spoofed_packets_are_dropped") {
        return;
    }
    let mut host = TestHost::new().await;
    let (spec, one, two) = two_guests(&mut host, None).await;
    let nobody = Ipv4Addr::new(172, 31, 0, 99);
    one.send(&one.syn_as(one.mac, nobody, two.ip, 5000, 22));
    one.send(&one.syn_as([6, 0, 0, 0, 0, 99], one.ip, two.ip, 5001, 22));
    one.send(&one.syn_as(two.mac, two.ip, two.ip, 5002, 22));
    one.send(&one.syn(two.ip, 5003, 22));
    assert_eq!(two.tcp_sources_until(5003), [5003], "a spoofed packet arrived");
    for (mac, ip) in [
        (one.mac, two.ip),
        (two.mac, one.ip),
        ([6, 0, 0, 0, 0, 99], one.ip),
    ] {
        one.send(&one.arp_request(mac, ip, ROUTER));
        assert_eq!(
            one.sees_arp_reply(ROUTER, SILENCE),
            None,
            "ARP as {ip} was answered"
        );
    }
    // Nothing but DHCP, DNS, IMDS and ping answers in the namespace.
    let listener = common::inside(&spec.vpc_id, || {
        std::net::TcpListener::bind("0.0.0.0:7777").unwrap()
    });
    one.send(&one.syn(ROUTER, 5010, 7777));
    assert!(
        one.receive(SILENCE, common::tcp_ports).is_none(),
        "a port of the namespace answered"
    );
    drop(listener);
}

/// What `nft` calls the table: a new handle is a new table.
fn table_handle(netns: &str, table: &str) -> String {
    let listed = common::run(&format!("ip netns exec {netns} nft -a list table {table}"));
    listed.lines().next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_is_noticed_and_mended() {
    if cannot_run("drift_is_noticed_and_mended") {
        return;
    }
    let mut host = TestHost::new().await;
    let (mut spec, one, two) = two_guests(&mut host, None).await;
    let netns = spec.vpc_id.clone();
    assert_eq!(host.network.check_vpc(&netns).await.unwrap(), None);
    let handle = table_handle(&netns, "inet vpc");

    // A change of members is no new table, and neither is a restart of the agent.
    spec.security_groups[0].members.push(Ipv4Addr::new(172, 31, 7, 7));
    host.network.apply_vpc(&spec).await.unwrap();
    assert_eq!(host.network.check_vpc(&netns).await.unwrap(), None);
    let restarted = host.restarted().await;
    drop(std::mem::replace(&mut host.network, restarted));
    host.apply(&spec).await;
    assert_eq!(
        table_handle(&netns, "inet vpc"),
        handle,
        "the rules were loaded anew"
    );

    let vpc = format!("ip netns exec {netns} nft");
    let root = format!("ip netns exec {} nft", host.root);
    let group = &spec.security_groups[0].group_id;
    for (drift, said) in [
        (format!("{vpc} flush ruleset"), "no chain antispoof"),
        (
            format!("{vpc} insert rule inet vpc egress accept"),
            "chain egress has",
        ),
        (
            format!("{vpc} add chain inet vpc ingress '{{ policy accept; }}'"),
            "chain ingress is",
        ),
        (
            format!("{vpc} add element inet vpc {group}-members '{{ 172.31.8.8 }}'"),
            "-members is",
        ),
        (format!("{vpc} delete table arp vpc"), "no chain input"),
        (format!("{root} flush ruleset"), "no chain"),
    ] {
        common::run(&drift);
        let found = host.network.check_vpc(&netns).await.unwrap().expect(&drift);
        assert!(found.contains(said), "{drift}: {found}");
        host.network.apply_vpc(&spec).await.unwrap();
        assert_eq!(host.network.check_vpc(&netns).await.unwrap(), None, "{drift}");
    }
    one.send(&one.syn(two.ip, 4000, 23));
    one.send(&one.syn(two.ip, 4001, 22));
    assert!(two.sees_only(4001, 4000), "port 23 was admitted");
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_of_every_kind_are_loaded_as_asked_for() {
    if cannot_run("rules_of_every_kind_are_loaded_as_asked_for") {
        return;
    }
    let mut host = TestHost::new().await;
    let mut spec = host.vpc();
    let mut one = eni(10);
    one.public_ip = Some(Ipv4Addr::new(198, 18, 0, 10));
    let mut web = group(1, &[one.private_ip], Vec::new());
    one.security_group_ids = vec![web.group_id.clone()];
    let cidr = |text: &str| Peer::Cidr(text.parse().unwrap());
    let peers = [
        anywhere(),
        cidr("10.1.2.3/8"),
        cidr("192.0.2.1/32"),
        cidr("128.0.0.0/1"),
        Peer::Group(web.group_id.clone()),
    ];
    let ports = [
        (0, 65_535),
        (0, 0),
        (22, 22),
        (0, 1023),
        (1000, 2000),
        (65_535, 65_535),
    ];
    let numbers = [0_u8, 3, 5, 8, 42, 255];
    let mut protocols = vec![
        Protocol::All,
        Protocol::Icmp {
            kind: None,
            code: None,
        },
    ];
    for (from, to) in ports {
        protocols.extend([Protocol::Tcp { from, to }, Protocol::Udp { from, to }]);
    }
    for number in numbers {
        let kind = Some(number);
        protocols.extend(numbers.map(|code| Protocol::Icmp {
            kind,
            code: Some(code),
        }));
        protocols.push(Protocol::Icmp { kind, code: None });
    }
    protocols.extend((0..=255).map(Protocol::Other));
    for peer in peers {
        web.ingress.extend(protocols.iter().map(|&protocol| RuleSpec {
            protocol,
            peer: peer.clone(),
        }));
    }
    web.egress = web.ingress.clone();
    spec.enis = vec![one];
    spec.security_groups = vec![web];
    // Loading reads back and compares.
    host.network.apply_vpc(&spec).await.unwrap();
    assert_eq!(host.network.check_vpc(&spec.vpc_id).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_costs_what_it_adds() {
    if cannot_run("a_launch_costs_what_it_adds") {
        return;
    }
    let mut host = TestHost::new().await;
    let mut spec = host.vpc();
    let mut enis: Vec<_> = (10..20).map(eni).collect();
    let members: Vec<Ipv4Addr> = enis.iter().map(|eni| eni.private_ip).collect();
    let web = group(1, &members, vec![tcp(22, anywhere())]);
    for (eni, last) in enis.iter_mut().zip(10..) {
        eni.security_group_ids = vec![web.group_id.clone()];
        eni.public_ip = Some(Ipv4Addr::new(198, 18, 0, last));
    }
    spec.security_groups = vec![web];
    spec.enis = enis.split_off(9);
    let eleventh = spec.enis.pop();
    spec.enis.extend(enis);
    let apply = async |spec: &VpcSpec| {
        let time = Instant::now();
        host.network.apply_vpc(spec).await.unwrap();
        time.elapsed()
    };
    let new = apply(&spec).await;
    spec.enis.extend(eleventh);
    let one_more = apply(&spec).await;
    let mut nothing = Duration::MAX;
    for _ in 0..5 {
        nothing = nothing.min(apply(&spec).await);
    }
    eprintln!(
        "apply_vpc: a new VPC with 9 interfaces {new:?}, the 10th {one_more:?}, nothing new {nothing:?}"
    );
    // As ratios, which hold on a slow machine too.
    assert!(
        one_more < new,
        "the 10th interface took {one_more:?}, all of 9 and the VPC {new:?}"
    );
    assert!(
        nothing * 2 < one_more.max(new / 4),
        "nothing new took {nothing:?}, an interface {one_more:?}"
    );
    let mut taps = Vec::new();
    let mut slowest = Duration::ZERO;
    for index in 0..10 {
        let time = Instant::now();
        taps.push(host.guest(&spec, index).await);
        slowest = slowest.max(time.elapsed());
    }
    eprintln!("open_tap, slowest of ten: {slowest:?}");
    let time = Instant::now();
    host.network.remove_vpc(&spec.vpc_id).await.unwrap();
    eprintln!("remove_vpc: {:?}", time.elapsed());
    assert!(host.network.vpcs().await.unwrap().is_empty());
    host.network.release_host().await.unwrap();
    let left = common::run(&format!(
        "ip -n {0} -br link; ip netns exec {0} nft list ruleset; ip -n {0} route",
        host.root
    ));
    assert!(!left.contains("hv") && !left.contains("hearth"), "{left}");
}
