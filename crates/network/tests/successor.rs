//! Connections end with the holder of an address, and with the rules that EC2 says they hang on.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::net::Ipv4Addr;

use common::{Guest, TestHost, anywhere, cannot_run, eni, group, tcp};
use hearth_network::spec::{EniSpec, Peer, Protocol, RuleSpec, SecurityGroupSpec, VpcSpec};

const PUBLIC: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 10);
const PORTS: std::ops::Range<u16> = 5000..5005;

/// Opens a connection from each of `sources` to the port of the same place, and returns how many came about.
fn connect(
    client: &Guest,
    to: Ipv4Addr,
    server: &Guest,
    seen_as: Ipv4Addr,
    sources: std::ops::Range<u16>,
) -> usize {
    let connected = sources.clone().zip(PORTS).filter(|&(source, port)| {
        client.send(&client.syn(to, source, port));
        if !server.sees_tcp(source, port) {
            return false;
        }
        server.send(&server.syn_ack(seen_as, port, source));
        if !client.sees_tcp(port, source) {
            return false;
        }
        client.send(&client.ack(to, source, port, b""));
        server.sees_tcp(source, port)
    });
    connected.count()
}

/// How many of five packets of old connections `successor` gets. `marker` is sent after them and must arrive; it comes
/// from port 7777.
fn inherited(sender: &Guest, old: impl Fn(usize) -> Vec<u8>, marker: &[u8], successor: &Guest) -> usize {
    for index in 0..PORTS.len() {
        sender.send(&old(index));
    }
    sender.send(marker);
    successor.tcp_sources_until(7777).len() - 1
}

struct Setting {
    host: TestHost,
    spec: VpcSpec,
    neighbour: Guest,
    predecessor: Option<Guest>,
    outside: Guest,
}

/// A predecessor that anybody reaches, with a public address; a neighbour; and somebody outside. The predecessor has five
/// connections in each direction with each of both.
async fn setting() -> Setting {
    let mut host = TestHost::new().await;
    let mut spec = host.vpc();
    let (mut predecessor, mut neighbour) = (eni(10), eni(11));
    predecessor.public_ip = Some(PUBLIC);
    let all = RuleSpec {
        protocol: Protocol::Tcp { from: 1, to: 60_000 },
        peer: anywhere(),
    };
    let open = group(1, &[predecessor.private_ip, neighbour.private_ip], vec![all]);
    predecessor.security_group_ids = vec![open.group_id.clone()];
    neighbour.security_group_ids = vec![open.group_id.clone()];
    // The successor's: only the marker's port.
    let closed = group(2, &[], vec![tcp(22, anywhere())]);
    spec.enis = vec![predecessor, neighbour];
    spec.security_groups = vec![open, closed];
    host.network.apply_vpc(&spec).await.unwrap();
    let predecessor = host.guest(&spec, 0).await;
    let neighbour = host.guest(&spec, 1).await;
    let outside = host.outside();
    let private = predecessor.ip;
    assert_eq!(
        connect(&neighbour, private, &predecessor, neighbour.ip, 40_000..40_005),
        5
    );
    assert_eq!(
        connect(&predecessor, neighbour.ip, &neighbour, private, 41_000..41_005),
        5
    );
    assert_eq!(
        connect(&outside, PUBLIC, &predecessor, outside.ip, 42_000..42_005),
        5
    );
    assert_eq!(
        connect(&predecessor, outside.ip, &outside, TestHost::WAN, 43_000..43_005),
        5
    );
    Setting {
        host,
        spec,
        neighbour,
        predecessor: Some(predecessor),
        outside,
    }
}

/// The successor: another interface with the same addresses, in the closed group.
fn successor(spec: &VpcSpec) -> EniSpec {
    EniSpec {
        private_ip: spec.enis[0].private_ip,
        public_ip: spec.enis[0].public_ip,
        security_group_ids: vec![spec.security_groups[1].group_id.clone()],
        ..eni(10)
    }
}

/// Packets of the predecessor's twenty connections that the successor gets: from inside to its servers and clients, from
/// outside to its servers and clients.
fn all_inherited(setting: &Setting, successor: &Guest) -> [usize; 4] {
    let Setting {
        neighbour, outside, ..
    } = setting;
    let port = |index: usize| PORTS.start + index as u16;
    let private = successor.ip;
    let from_inside = neighbour.syn(private, 7777, 22);
    let from_outside = outside.syn(PUBLIC, 7777, 22);
    [
        inherited(
            neighbour,
            |i| neighbour.syn(private, 40_000 + i as u16, port(i)),
            &from_inside,
            successor,
        ),
        inherited(
            neighbour,
            |i| neighbour.data(private, port(i), 41_000 + i as u16),
            &from_inside,
            successor,
        ),
        inherited(
            outside,
            |i| outside.syn(PUBLIC, 42_000 + i as u16, port(i)),
            &from_outside,
            successor,
        ),
        inherited(
            outside,
            |i| outside.data(TestHost::WAN, port(i), 43_000 + i as u16),
            &from_outside,
            successor,
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_inherits_no_connection() {
    if cannot_run("a_successor_inherits_no_connection") {
        return;
    }
    let mut setting = setting().await;
    let successor = successor(&setting.spec);
    setting.predecessor = None;
    setting.spec.enis[0] = successor;
    setting.host.network.apply_vpc(&setting.spec).await.unwrap();
    let successor = setting.host.guest(&setting.spec, 0).await;
    assert_eq!(all_inherited(&setting, &successor), [0; 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_successor_inherits_no_connection() {
    if cannot_run("a_later_successor_inherits_no_connection") {
        return;
    }
    let mut setting = setting().await;
    let successor = successor(&setting.spec);
    setting.predecessor = None;
    let neighbour = setting.spec.enis.remove(1);
    setting.spec.enis = vec![neighbour.clone()];
    setting.host.network.apply_vpc(&setting.spec).await.unwrap();
    setting.spec.enis = vec![successor, neighbour];
    setting.host.network.apply_vpc(&setting.spec).await.unwrap();
    let successor = setting.host.guest(&setting.spec, 0).await;
    assert_eq!(all_inherited(&setting, &successor), [0; 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_inherits_no_connection_from_before_the_agent() {
    if cannot_run("a_successor_inherits_no_connection_from_before_the_agent") {
        return;
    }
    let mut setting = setting().await;
    let successor = successor(&setting.spec);
    setting.predecessor = None;
    // The address moves while no agent runs.
    let restarted = setting.host.restarted().await;
    drop(std::mem::replace(&mut setting.host.network, restarted));
    setting.spec.enis[0] = successor;
    setting.host.apply(&setting.spec).await;
    let successor = setting.host.guest(&setting.spec, 0).await;
    assert_eq!(all_inherited(&setting, &successor), [0; 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_connections_go_on() {
    if cannot_run("other_connections_go_on") {
        return;
    }
    let mut setting = setting().await;
    // A third interface comes and goes, and the agent restarts.
    setting.spec.enis.push(eni(12));
    setting.host.network.apply_vpc(&setting.spec).await.unwrap();
    setting.spec.enis.pop();
    setting.host.network.apply_vpc(&setting.spec).await.unwrap();
    let restarted = setting.host.restarted().await;
    drop(std::mem::replace(&mut setting.host.network, restarted));
    setting.host.apply(&setting.spec).await;
    let predecessor = setting.predecessor.take().unwrap();
    assert_eq!(all_inherited(&setting, &predecessor), [5; 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_address_takes_its_connections_along() {
    if cannot_run("a_public_address_takes_its_connections_along") {
        return;
    }
    let mut setting = setting().await;
    let mut other = eni(13);
    other.security_group_ids = vec![setting.spec.security_groups[1].group_id.clone()];
    other.public_ip = setting.spec.enis[0].public_ip.take();
    setting.spec.enis.push(other);
    setting.host.network.apply_vpc(&setting.spec).await.unwrap();
    let other = setting.host.guest(&setting.spec, 2).await;
    let Setting {
        neighbour, outside, ..
    } = &setting;
    let marker = outside.syn(PUBLIC, 7777, 22);
    let port = |index: usize| PORTS.start + index as u16;
    let to_servers = |i| outside.syn(PUBLIC, 42_000 + i as u16, port(i));
    assert_eq!(inherited(outside, to_servers, &marker, &other), 0);
    let to_clients = |i| outside.data(TestHost::WAN, port(i), 43_000 + i as u16);
    assert_eq!(inherited(outside, to_clients, &marker, &other), 0);
    // The private address has stayed where it was, with its connections.
    let predecessor = setting.predecessor.as_ref().unwrap();
    let marker = neighbour.syn(predecessor.ip, 7777, 22);
    let inside = |i| neighbour.ack(predecessor.ip, 40_000 + i as u16, port(i), b"more");
    assert_eq!(inherited(neighbour, inside, &marker, predecessor), 5);
}

/// Two guests; the second is in a group with `ingress`, which then becomes `after`. How many of five connections from
/// the first go on.
async fn connections_after(ingress: Vec<RuleSpec>, egress: Vec<RuleSpec>, after: Vec<RuleSpec>) -> usize {
    let mut host = TestHost::new().await;
    let mut spec = host.vpc();
    let (mut client, mut server) = (eni(10), eni(11));
    let marker = tcp(22, anywhere());
    let open = group(1, &[client.private_ip], vec![marker.clone()]);
    let web = SecurityGroupSpec {
        egress,
        ..group(2, &[server.private_ip], [vec![marker.clone()], ingress].concat())
    };
    client.security_group_ids = vec![open.group_id.clone()];
    server.security_group_ids = vec![web.group_id.clone()];
    spec.enis = vec![client, server];
    spec.security_groups = vec![open, web];
    host.network.apply_vpc(&spec).await.unwrap();
    let (client, server) = (host.guest(&spec, 0).await, host.guest(&spec, 1).await);
    assert_eq!(connect(&client, server.ip, &server, client.ip, 40_000..40_005), 5);
    spec.security_groups[1].ingress = [vec![marker], after].concat();
    host.network.apply_vpc(&spec).await.unwrap();
    // Data of the server does not bring an interrupted connection back.
    for (source, port) in (40_000..).zip(PORTS) {
        server.send(&server.data(client.ip, port, source));
    }
    server.send(&server.syn(client.ip, 7777, 22));
    client.tcp_sources_until(7777);
    let old = |i: usize| client.ack(server.ip, 40_000 + i as u16, PORTS.start + i as u16, b"more");
    inherited(&client, old, &client.syn(server.ip, 7777, 22), &server)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_rule_interrupts_untracked_connections_only() {
    if cannot_run("a_revoked_rule_interrupts_untracked_connections_only") {
        return;
    }
    let ports = |peer| RuleSpec {
        protocol: Protocol::Tcp { from: 5000, to: 5004 },
        peer,
    };
    let everywhere = || ports(anywhere());
    let cidr = |text: &str| ports(Peer::Cidr(text.parse().unwrap()));
    let out = |protocol| {
        vec![RuleSpec {
            protocol,
            peer: anywhere(),
        }]
    };
    let all_out = || out(Protocol::All);
    // EC2 tracks what a narrower rule admits, and what has no open way back.
    assert_eq!(
        connections_after(vec![cidr("172.31.0.0/16")], all_out(), vec![]).await,
        5
    );
    let no_way_back = out(Protocol::Tcp { from: 22, to: 22 });
    assert_eq!(
        connections_after(vec![everywhere()], no_way_back, vec![]).await,
        5
    );
    assert_eq!(connections_after(vec![everywhere()], all_out(), vec![]).await, 0);
    // Narrowed: what the narrower rule admits goes on.
    assert_eq!(
        connections_after(vec![everywhere()], all_out(), vec![cidr("172.31.0.10/32")]).await,
        5
    );
    assert_eq!(
        connections_after(vec![everywhere()], all_out(), vec![cidr("172.31.0.99/32")]).await,
        0
    );
}
