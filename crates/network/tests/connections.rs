//! One guest cannot take the tracked connections of others.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::net::Ipv4Addr;
use std::time::Instant;

use common::{TestHost, anywhere, cannot_run, eni, group, tcp};
use hearth_network::RefusedConnections;
use hearth_network::spec::{EniSpec, VpcSpec};

const FLOOD: usize = 34_000;
const PUBLIC: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 18, 0, 10), Ipv4Addr::new(198, 18, 0, 11)];

/// Tracked connections of a namespace.
fn tracked(netns: &str) -> usize {
    let count = common::run(&format!(
        "ip netns exec {netns} cat /proc/sys/net/netfilter/nf_conntrack_count"
    ));
    count.trim().parse().unwrap()
}

/// By interface, in the specification's order.
async fn refused(host: &TestHost, spec: &VpcSpec) -> Vec<RefusedConnections> {
    let counters = host.network.counters().await;
    let of = |eni: &EniSpec| {
        counters
            .iter()
            .find(|counters| counters.interface_id == eni.eni_id)
            .unwrap()
            .connections
    };
    spec.enis.iter().map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_connections_is_the_flooders_own() {
    if cannot_run("a_flood_of_connections_is_the_flooders_own") {
        return;
    }
    let mut host = TestHost::new().await;
    let maximum: usize = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max")
        .map_or(65_536, |text| text.trim().parse().unwrap());
    // The share is a sixteenth, in parts; one new VPC has a handful of other connections.
    let share = maximum / 16 + 100;
    if FLOOD < 2 * share {
        eprintln!("SKIPPED: the host tracks {maximum} connections, too many for this test to fill a share");
        return;
    }
    let mut spec = host.vpc();
    let (mut flooder, mut neighbour) = (eni(10), eni(11));
    let web = group(1, &[], vec![tcp(22, anywhere())]);
    for (eni, public) in [&mut flooder, &mut neighbour].into_iter().zip(PUBLIC) {
        eni.public_ip = Some(public);
        eni.security_group_ids = vec![web.group_id.clone()];
    }
    spec.enis = vec![flooder, neighbour];
    spec.security_groups = vec![web];
    host.network.apply_vpc(&spec).await.unwrap();
    let (flooder, neighbour) = (host.guest(&spec, 0).await, host.guest(&spec, 1).await);
    let outside = host.outside();

    let start = Instant::now();
    for index in 0..FLOOD {
        let (from, to) = (1024 + (index % 50_000) as u16, 5000 + (index / 50_000) as u16);
        flooder.send(&flooder.udp(outside.ip, from, to, b"flood"));
    }
    let (inside, on_host) = (tracked(&spec.vpc_id), tracked(&host.root));
    eprintln!(
        "{FLOOD} new connections in {:?}: {inside} tracked in the VPC, {on_host} on the host, of {maximum}",
        start.elapsed()
    );
    let refused = self::refused(&host, &spec).await;
    eprintln!("{refused:?}");
    assert!(inside <= share, "one guest has {inside} tracked connections");
    assert!(
        on_host <= share,
        "one guest has {on_host} of the host's tracked connections"
    );
    assert!(refused[0].begun as usize >= FLOOD - share, "an operator sees it");
    assert_eq!((refused[1].begun, refused[1].from_outside), (0, 0));

    // What still waits in the TAP.
    while outside.receive(common::SILENCE, |_| Some(())).is_some() {}
    // The neighbour's connections, in and out; and what the flooder has is not forgotten by a change of rules.
    neighbour.send(&neighbour.syn(outside.ip, 2000, 443));
    assert!(
        outside
            .receive(common::PATIENCE, |frame| common::tcp_ports(frame)
                .filter(|p| p.1 == 443))
            .is_some()
    );
    outside.send(&outside.syn(PUBLIC[1], 2001, 22));
    assert!(neighbour.sees_tcp(2001, 22));
    spec.security_groups[0].ingress.push(tcp(23, anywhere()));
    host.network.apply_vpc(&spec).await.unwrap();
    for index in 0..5_000 {
        flooder.send(&flooder.udp(outside.ip, 1024 + index, 6000, b"flood"));
    }
    let inside = tracked(&spec.vpc_id);
    assert!(inside <= share, "after a change of rules: {inside}");
    assert_eq!(host.network.check_vpc(&spec.vpc_id).await.unwrap(), None);

    // From outside, too, to the neighbour's open port.
    let before = tracked(&spec.vpc_id);
    for index in 0..FLOOD {
        let from = Ipv4Addr::from_bits(0xc633_6500 + (index / 50_000) as u32);
        let syn = outside.syn_as(outside.mac, from, PUBLIC[1], 1024 + (index % 50_000) as u16, 22);
        outside.send(&syn);
    }
    let came = tracked(&spec.vpc_id) - before;
    assert!(came <= share, "{came} connections from outside");
    let refused = self::refused(&host, &spec).await;
    assert!(refused[1].from_outside as usize >= FLOOD - share, "{refused:?}");
}
