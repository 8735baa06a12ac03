//! What routes let pass between subnets and the internet, and that VPCs are apart whose addresses are the same.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::net::Ipv4Addr;

use common::dns::question;
use common::{
    Guest, PATIENCE, SILENCE, TestHost, anywhere, cannot_run, eni, group, subnet, tcp, two_guests,
    udp_datagram,
};
use hearth_network::spec::VpcSpec;

const PUBLIC: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 10);

async fn lead(host: &TestHost, spec: &mut VpcSpec, internet: &[&str]) {
    spec.subnets[0].internet = internet.iter().map(|block| block.parse().unwrap()).collect();
    host.network.apply_vpc(spec).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn vpcs_exchange_nothing_by_private_addresses() {
    if cannot_run("vpcs_exchange_nothing_by_private_addresses") {
        return;
    }
    let mut host = TestHost::new().await;
    let (_, one, two) = two_guests(&mut host, Some(PUBLIC)).await;
    let (mut other, its_one, its_two) = two_guests(&mut host, Some(Ipv4Addr::new(198, 18, 0, 11))).await;
    // An address that the first VPC's block has, and no interface of it.
    let mut third = eni(12);
    third.security_group_ids = vec![other.security_groups[0].group_id.clone()];
    other.enis.push(third);
    host.network.apply_vpc(&other).await.unwrap();
    let its_third = host.guest(&other, 2).await;
    // A VPC with addresses that the first one's route to the internet leads to.
    let mut apart = host.vpc();
    apart.cidr = "10.0.0.0/16".parse().unwrap();
    apart.subnets = vec![subnet("10.0.0.0/24", &["0.0.0.0/0"])];
    let web = group(1, &[], vec![tcp(22, anywhere())]);
    for (host_part, ip) in [(20, [10, 0, 0, 20]), (21, [10, 0, 0, 21])] {
        let mut own = eni(host_part);
        own.subnet = "10.0.0.0/24".parse().unwrap();
        own.private_ip = ip.into();
        own.security_group_ids = vec![web.group_id.clone()];
        apart.enis.push(own);
    }
    apart.security_groups = vec![web];
    host.network.apply_vpc(&apart).await.unwrap();
    let (far, beside) = (host.guest(&apart, 0).await, host.guest(&apart, 1).await);

    for (to, port) in [(its_two.ip, 4000), (its_third.ip, 4000), (far.ip, 4000)] {
        one.send(&one.syn(to, port, 22));
    }
    // By now it would have come everywhere.
    assert!(two.sees_tcp(4000, 22), "an address of its own VPC");
    for (from, to) in [(&its_one, &its_two), (&its_one, &its_third), (&beside, &far)] {
        from.send(&from.syn(to.ip, 4001, 22));
        assert!(
            to.sees_only(4001, 4000),
            "a packet of another VPC came to {}",
            to.ip
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_decide_what_leaves_and_what_enters() {
    if cannot_run("routes_decide_what_leaves_and_what_enters") {
        return;
    }
    let mut host = TestHost::new().await;
    let (mut spec, one, two) = two_guests(&mut host, Some(PUBLIC)).await;
    let outside = host.outside();
    // Of several routes, those that hold the other end, and those that do not.
    let cases: [(&[&str], bool); 4] = [
        (&[], false),
        (&["198.51.100.0/24"], true),
        (&["0.0.0.0/1", "192.0.2.0/24"], false),
        (&["0.0.0.0/0"], true),
    ];
    let mut port = 5000;
    for (internet, leads) in cases {
        lead(&host, &mut spec, internet).await;
        outside.send(&outside.syn(PUBLIC, port, 22));
        one.send(&one.syn(outside.ip, port, 22));
        // In the VPC everything is as it was.
        two.send(&two.syn(one.ip, port + 1, 22));
        let seen = one.tcp_sources_until(port + 1);
        assert_eq!(seen.contains(&port), leads, "in by {internet:?}: {seen:?}");
        if !leads {
            lead(&host, &mut spec, &["0.0.0.0/0"]).await;
            one.send(&one.syn(outside.ip, port + 2, 22));
            assert!(outside.sees_only(port + 2, port), "out by {internet:?}");
        } else {
            assert!(outside.sees_tcp(port, 22), "out by {internet:?}");
        }
        port += 10;
    }

    // A connection that is open ends with its route, and goes on with it.
    outside.send(&outside.syn_ack(TestHost::WAN, 22, port - 10));
    assert!(one.sees_tcp(22, port - 10), "the answer comes back");
    one.send(&one.ack(outside.ip, port - 10, 22, b""));
    assert!(outside.sees_tcp(port - 10, 22));
    lead(&host, &mut spec, &[]).await;
    one.send(&one.ack(outside.ip, port - 10, 22, b"lost"));
    lead(&host, &mut spec, &["0.0.0.0/0"]).await;
    one.send(&one.syn(outside.ip, port, 22));
    assert!(
        outside.sees_only(port, port - 10),
        "an open connection outlived its route"
    );
    one.send(&one.ack(outside.ip, port - 10, 22, b"came"));
    assert!(outside.sees_tcp(port - 10, 22));
    assert_eq!(host.network.check_vpc(&spec.vpc_id).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn subnets_have_routes_of_their_own() {
    if cannot_run("subnets_have_routes_of_their_own") {
        return;
    }
    let mut host = TestHost::new().await;
    let (mut spec, one, _two) = two_guests(&mut host, Some(PUBLIC)).await;
    let outside = host.outside();
    let mut inner = eni(12);
    inner.private_ip = Ipv4Addr::new(172, 31, 16, 12);
    inner.subnet = "172.31.16.0/20".parse().unwrap();
    inner.public_ip = Some(Ipv4Addr::new(198, 18, 0, 12));
    inner.security_group_ids = spec.enis[0].security_group_ids.clone();
    spec.enis.push(inner);
    spec.subnets.push(subnet("172.31.16.0/20", &[]));
    host.network.apply_vpc(&spec).await.unwrap();
    let inner: Guest = host.guest(&spec, 2).await;
    inner.send(&inner.syn(outside.ip, 6000, 22));
    outside.send(&outside.syn(Ipv4Addr::new(198, 18, 0, 12), 6000, 22));
    one.send(&one.syn(outside.ip, 6001, 22));
    assert!(outside.sees_only(6001, 6000), "a subnet used another one's route");
    // Subnets of a VPC reach each other.
    one.send(&one.syn(inner.ip, 6002, 22));
    assert!(inner.sees_only(6002, 6000), "what came from outside had no route");
    inner.send(&inner.syn(one.ip, 6003, 22));
    assert!(one.sees_tcp(6003, 22));
    // One that nothing is said of has no way out.
    spec.subnets.remove(0);
    host.network.apply_vpc(&spec).await.unwrap();
    one.send(&one.syn(outside.ip, 6004, 22));
    one.send(&one.syn(inner.ip, 6005, 22));
    assert!(inner.sees_tcp(6005, 22));
    spec.subnets.insert(0, subnet("172.31.0.0/20", &["0.0.0.0/0"]));
    host.network.apply_vpc(&spec).await.unwrap();
    one.send(&one.syn(outside.ip, 6006, 22));
    assert!(outside.sees_only(6006, 6004));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vpc_without_dns_answers_no_questions() {
    if cannot_run("a_vpc_without_dns_answers_no_questions") {
        return;
    }
    let mut host = TestHost::new().await;
    let (mut spec, one, _two) = two_guests(&mut host, None).await;
    let asks = |one: &Guest, port| {
        let question = question("ip-172-31-0-10.ec2.internal");
        one.send(&one.udp(Ipv4Addr::new(172, 31, 0, 2), port, 53, &question));
    };
    let answered = move |frame: &[u8]| match udp_datagram(frame)? {
        (_, _, 53, to, _) => Some(to),
        _ => None,
    };
    spec.dns = false;
    host.network.apply_vpc(&spec).await.unwrap();
    asks(&one, 7000);
    assert_eq!(one.receive(SILENCE, answered), None);
    spec.dns = true;
    host.network.apply_vpc(&spec).await.unwrap();
    asks(&one, 7001);
    assert_eq!(one.receive(PATIENCE, answered), Some(7001));
}
