//! Somebody changes a VPC by hand: it is noticed and mended, and a connection that is allowed goes on.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::net::Ipv4Addr;

use common::{Guest, PATIENCE, TestHost, cannot_run, run, tcp_ports, two_guests};
use hearth_network::names::{tap_name, uplink_name};
use hearth_network::spec::VpcSpec;

const PUBLIC: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 10);
/// Source port of the connection that goes on, from outside to the first guest, and of the one between the guests.
const OUTER: u16 = 4100;
const INNER: u16 = 4200;

struct Scene {
    host: TestHost,
    spec: VpcSpec,
    one: Guest,
    two: Guest,
    outside: Guest,
}

impl Scene {
    async fn new() -> Self {
        let mut host = TestHost::new().await;
        let (spec, one, two) = two_guests(&mut host, Some(PUBLIC)).await;
        let outside = host.outside();
        // The host's routes are part of the rules.
        host.network.check_vpc(&spec.vpc_id).await.unwrap();
        host.network.apply_vpc(&spec).await.unwrap();
        let scene = Self {
            host,
            spec,
            one,
            two,
            outside,
        };
        scene.outside.send(&scene.outside.syn(PUBLIC, OUTER, 22));
        assert!(scene.one.sees_tcp(OUTER, 22), "no connection from outside");
        scene.one.send(&scene.one.syn_ack(scene.outside.ip, 22, OUTER));
        assert!(scene.outside.sees_tcp(22, OUTER));
        scene.two.send(&scene.two.syn(scene.one.ip, INNER, 22));
        assert!(scene.one.sees_tcp(INNER, 22), "no connection between guests");
        scene.one.send(&scene.one.syn_ack(scene.two.ip, 22, INNER));
        assert!(scene.two.sees_tcp(22, INNER));
        scene.connections_go_on("before anything was changed");
        scene
    }

    /// Both ways, on both connections, without another SYN.
    fn connections_go_on(&self, when: &str) {
        let passes = |from: &Guest, frame: &[u8], to: &Guest, ports| {
            from.send(frame);
            let seen = to.receive(PATIENCE, |frame| tcp_ports(frame).filter(|seen| *seen == ports));
            assert!(seen.is_some(), "{when}: {ports:?} does not arrive");
        };
        let (one, two, outside) = (&self.one, &self.two, &self.outside);
        passes(outside, &outside.ack(PUBLIC, OUTER, 22, b"in"), one, (OUTER, 22));
        passes(one, &one.data(outside.ip, 22, OUTER), outside, (22, OUTER));
        passes(two, &two.ack(one.ip, INNER, 22, b"in"), one, (INNER, 22));
        passes(one, &one.data(two.ip, 22, INNER), two, (22, INNER));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_by_hand_is_noticed_and_mended_and_connections_go_on() {
    if cannot_run("what_was_changed_by_hand_is_noticed_and_mended_and_connections_go_on") {
        return;
    }
    let scene = Scene::new().await;
    let (network, spec) = (&scene.host.network, &scene.spec);
    let (vpc, root) = (&spec.vpc_id, &scene.host.root);
    let (tap, outer) = (tap_name(&spec.enis[0].eni_id), uplink_name(vpc));
    let (guest, inside) = (scene.one.ip, format!("ip netns exec {vpc} "));
    let mark = scene.host.config.state_dir.join(vpc).display().to_string();
    let damages = [
        (
            "VPC's ruleset flushed",
            format!("{inside} nft flush ruleset"),
            "no chain antispoof",
        ),
        (
            "host's ruleset flushed",
            format!("ip netns exec {root} nft flush ruleset"),
            "no chain",
        ),
        (
            "rule added",
            format!("{inside} nft insert rule inet vpc egress accept"),
            "chain egress has",
        ),
        (
            "guest's route deleted",
            format!("ip -n {vpc} route del {guest}/32"),
            "the route to 172.31.0.10/32",
        ),
        (
            "default route deleted",
            format!("ip -n {vpc} route del default"),
            "the route to 0.0.0.0/0",
        ),
        (
            "default route changed",
            format!("ip -n {vpc} route replace unreachable default"),
            "the route to 0.0.0.0/0",
        ),
        (
            "public address's route deleted",
            format!("ip -n {root} route del {PUBLIC}"),
            "the route to 198.18.0.10/32",
        ),
        (
            "guest's neighbour changed",
            format!("ip -n {vpc} neigh replace {guest} lladdr 02:00:00:00:00:99 dev {tap} nud permanent"),
            "172.31.0.10 is not bound to",
        ),
        (
            "guest's neighbour deleted",
            format!("ip -n {vpc} neigh del {guest} dev {tap}"),
            "172.31.0.10 is not bound to",
        ),
        (
            "host's neighbours deleted",
            format!("ip -n {root} neigh flush dev {outer} nud permanent"),
            "is not bound to",
        ),
        (
            "TAP set down",
            format!("ip -n {vpc} link set {tap} down"),
            "is down",
        ),
        (
            "TAP's MAC changed",
            format!("ip -n {vpc} link set {tap} address 02:00:00:00:00:77"),
            "has another MAC",
        ),
        (
            "uplink set down inside",
            format!("ip -n {vpc} link set uplink down"),
            "link uplink is down",
        ),
        (
            "uplink set down outside",
            format!("ip -n {root} link set {outer} down"),
            "is down",
        ),
        (
            "uplink deleted",
            format!("ip -n {root} link del {outer}"),
            "link uplink is gone",
        ),
        (
            "uplink's MTU changed",
            format!("ip -n {vpc} link set uplink mtu 600"),
            "has an MTU of 600",
        ),
        (
            "router's address deleted",
            format!("ip -n {vpc} addr del 172.31.0.1/32 dev lo"),
            "address 172.31.0.1 is gone",
        ),
        (
            "address added",
            format!("ip -n {vpc} addr add 172.31.0.99/32 dev lo"),
            "172.31.0.99 is somebody else's",
        ),
        (
            "forwarding off in the VPC",
            format!("{inside} sysctl -qw net.ipv4.ip_forward=0"),
            "ip_forward is 0",
        ),
        (
            "proxy_arp off on the TAP",
            format!("{inside} sysctl -qw net.ipv4.conf.{tap}.proxy_arp=0"),
            "proxy_arp is 0",
        ),
        (
            "rp_filter on in the VPC",
            format!("{inside} sysctl -qw net.ipv4.conf.all.rp_filter=1"),
            "rp_filter is 1",
        ),
        (
            "namespace's name deleted",
            format!("ip netns del {vpc}"),
            "has lost its name",
        ),
        ("mark deleted", format!("rm {mark}"), "its mark is gone"),
    ];
    for (what, damage, said) in &damages {
        assert_eq!(network.check_vpc(vpc).await.unwrap(), None, "before: {what}");
        run(damage);
        let found = network.check_vpc(vpc).await.unwrap();
        let found = found.unwrap_or_else(|| panic!("{what}: not noticed"));
        assert!(found.contains(said), "{what}: {found}");
        network.apply_vpc(spec).await.unwrap();
        assert_eq!(network.check_vpc(vpc).await.unwrap(), None, "after: {what}");
        scene.connections_go_on(what);
    }
    eprintln!("{} kinds of damage", damages.len());

    run(&format!("ip netns exec {root} sysctl -qw net.ipv4.ip_forward=0"));
    let found = network.check_host().await.unwrap().expect("forwarding is off");
    assert!(found.contains("switched off"), "{found}");
    assert_eq!(network.check_host().await.unwrap(), None);
    // The kernel has switched its links' forwarding off with the host's.
    scene.connections_go_on("forwarding off on the host");
}
