//! What a host forwards that has guests: nothing between its other networks, and from guests to none of them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use common::wire::WiredGuest;
use common::{PATIENCE, TestHost, anywhere, cannot_run, eni, group, inside, run, tcp};

const PUBLIC: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 10);
/// How long a connection is tried that must not come about.
const REFUSAL: Duration = Duration::from_millis(700);

/// A machine in another network of the host: `10.77.NUMBER.9`, which goes by the host to everywhere else.
struct Machine {
    netns: String,
    ip: Ipv4Addr,
}

impl Machine {
    fn beside(root: &str, number: u8) -> Self {
        let netns = format!("hnt-mach-{:012x}", rand::random::<u64>() >> 16);
        run(&format!(
            "ip netns add {netns} && ip -n {root} link add lan{number} type veth peer name eth0 netns {netns} \
             && ip -n {root} addr add 10.77.{number}.1/24 dev lan{number} && ip -n {root} link set lan{number} up \
             && ip -n {netns} link set lo up && ip -n {netns} addr add 10.77.{number}.9/24 dev eth0 \
             && ip -n {netns} link set eth0 up && ip -n {netns} route add default via 10.77.{number}.1"
        ));
        let machine = Self {
            netns,
            ip: Ipv4Addr::new(10, 77, number, 9),
        };
        listen(&machine.netns, 80);
        machine
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = std::process::Command::new("ip")
            .args(["netns", "del", &self.netns])
            .status();
    }
}

/// Says where each connection comes from.
fn listen(netns: &str, port: u16) {
    let listener = inside(netns, move || TcpListener::bind(("0.0.0.0", port)).unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let from = stream.peer_addr().unwrap().ip().to_string();
            let _ = std::io::Write::write_all(&mut stream, from.as_bytes());
        }
    });
}

/// As whom the other end sees the connection, if it comes about.
fn reaches(netns: &str, to: Ipv4Addr, port: u16, patience: Duration) -> Option<String> {
    inside(netns, move || {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from((to, port)), patience).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut seen = String::new();
        stream.read_to_string(&mut seen).unwrap();
        Some(seen)
    })
}

fn forwards(root: &str) -> bool {
    run(&format!("ip netns exec {root} cat /proc/sys/net/ipv4/ip_forward")).trim() == "1"
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_not_forwarded() {
    if cannot_run("strangers_are_not_forwarded") {
        return;
    }
    let host = TestHost::new().await;
    assert!(forwards(&host.root));
    let (one, two) = (Machine::beside(&host.root, 1), Machine::beside(&host.root, 2));
    assert_eq!(
        reaches(&one.netns, two.ip, 80, REFUSAL),
        None,
        "a stranger was forwarded"
    );
    // The next agent knows that the switch is Hearth's, also when somebody has flushed the rules.
    run(&format!("ip netns exec {} nft flush ruleset", host.root));
    assert!(reaches(&one.netns, two.ip, 80, PATIENCE).is_some(), "flushed");
    assert!(host.network.check_host().await.unwrap().is_some());
    assert_eq!(host.network.check_host().await.unwrap(), None);
    assert_eq!(
        reaches(&one.netns, two.ip, 80, REFUSAL),
        None,
        "the guard is back"
    );
    run(&format!("ip netns exec {} nft flush ruleset", host.root));
    let _restarted = host.restarted().await;
    assert_eq!(reaches(&one.netns, two.ip, 80, REFUSAL), None, "after a restart");
    // Containers of others are forwarded.
    run(&format!(
        "ip -n {0} link set lan2 down && ip -n {0} link set lan2 name docker7 && ip -n {0} link set docker7 up",
        host.root
    ));
    assert!(
        reaches(&one.netns, two.ip, 80, PATIENCE).is_some(),
        "Docker's bridge"
    );
    // All as it was.
    host.network.release_host().await.unwrap();
    assert!(!forwards(&host.root));
    let left = run(&format!("ip netns exec {} nft list ruleset", host.root));
    assert!(!left.contains("hearth"), "{left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_forwarding_goes_on() {
    if cannot_run("an_operators_forwarding_goes_on") {
        return;
    }
    let mut host = TestHost::new().await;
    host.network.release_host().await.unwrap();
    run(&format!(
        "ip netns exec {} sysctl -qw net.ipv4.ip_forward=1",
        host.root
    ));
    host.network = host.restarted().await;
    let (one, two) = (Machine::beside(&host.root, 1), Machine::beside(&host.root, 2));
    assert!(reaches(&one.netns, two.ip, 80, PATIENCE).is_some());
    host.network.release_host().await.unwrap();
    assert!(forwards(&host.root), "it is not Hearth's to switch off");
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_reach_the_hosts_networks_only_if_allowed() {
    if cannot_run("guests_reach_the_hosts_networks_only_if_allowed") {
        return;
    }
    let mut host = TestHost::new().await;
    let (near, far) = (Machine::beside(&host.root, 1), Machine::beside(&host.root, 2));
    // Behind `near`, which is also the way out: a private network that the host has no route to, a public one that it has
    // a route to, and the internet.
    let behind = [
        Ipv4Addr::new(192, 168, 3, 3),
        Ipv4Addr::new(192, 0, 2, 3),
        Ipv4Addr::new(198, 51, 100, 3),
    ];
    for address in behind {
        run(&format!("ip -n {} addr add {address}/32 dev lo", near.netns));
    }
    let [private, routed, internet] = behind;
    run(&format!(
        "ip -n {0} route add default via {1} && ip -n {0} route add 192.0.2.0/24 via {1}",
        host.root, near.ip
    ));
    let mut spec = host.vpc();
    let mut guest = eni(10);
    guest.public_ip = Some(PUBLIC);
    let web = group(1, &[guest.private_ip], vec![tcp(22, anywhere())]);
    guest.security_group_ids = vec![web.group_id.clone()];
    spec.enis = vec![guest];
    spec.security_groups = vec![web];
    host.network.apply_vpc(&spec).await.unwrap();
    let guest = WiredGuest::new(host.guest(&spec, 0).await, Ipv4Addr::new(172, 31, 0, 1));
    listen(&guest.netns, 22);

    for (to, what) in [
        (near.ip, "the gateway"),
        (far.ip, "another network"),
        (private, "a private network behind the gateway"),
        (routed, "a routed network"),
    ] {
        assert_eq!(
            reaches(&guest.netns, to, 80, REFUSAL),
            None,
            "{what} is open to guests"
        );
    }
    let seen = reaches(&guest.netns, internet, 80, PATIENCE);
    assert_eq!(seen.as_deref(), Some("10.77.1.1"), "the way out");
    // Those networks may use what the guest offers.
    let seen = reaches(&far.netns, PUBLIC, 22, PATIENCE);
    assert_eq!(seen.as_deref(), Some("10.77.2.9"), "the way in");

    // A route that comes later is heeded at the next check.
    run(&format!(
        "ip -n {} route add 198.51.100.0/24 via {}",
        host.root, near.ip
    ));
    assert!(host.network.check_vpc(&spec.vpc_id).await.unwrap().is_some());
    host.network.apply_vpc(&spec).await.unwrap();
    assert_eq!(host.network.check_vpc(&spec.vpc_id).await.unwrap(), None);
    assert_eq!(reaches(&guest.netns, internet, 80, REFUSAL), None);

    host.config.guest_networks = vec!["10.77.2.0/24".parse().unwrap(), "192.168.0.0/16".parse().unwrap()];
    host.network = host.restarted().await;
    host.apply(&spec).await;
    assert!(reaches(&guest.netns, far.ip, 80, PATIENCE).is_some(), "allowed");
    assert!(reaches(&guest.netns, private, 80, PATIENCE).is_some(), "allowed");
    assert_eq!(reaches(&guest.netns, near.ip, 80, REFUSAL), None, "not allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_firewalls_are_named() {
    if cannot_run("other_firewalls_are_named") {
        return;
    }
    let host = TestHost::new().await;
    assert_eq!(host.network.obstacles().await.unwrap(), Vec::<String>::new());
    let nft = |rules: &str| run(&format!("ip netns exec {} nft '{rules}'", host.root));
    nft(
        "table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; chain DOCKER-USER { }; }",
    );
    nft(
        "table inet firewalld { chain filter_FORWARD { type filter hook forward priority 10; policy accept; }; }",
    );
    nft("table inet mine { chain fw { type filter hook forward priority 5; policy drop; }; }");
    nft("table inet harmless { chain in { type filter hook input priority 5; policy drop; }; }");
    let found = host.network.obstacles().await.unwrap();
    let starts = ["Docker drops", "firewalld drops", "another rule set drops"];
    assert_eq!(found.len(), starts.len(), "{found:?}");
    for start in starts {
        assert!(
            found.iter().any(|sentence| sentence.starts_with(start)),
            "{start}: {found:?}"
        );
    }
    // What the last one says to do is what nft takes.
    let mine = found
        .iter()
        .find(|sentence| sentence.contains("inet mine"))
        .unwrap();
    let (_, commands) = mine.split_once("To admit them: ").unwrap();
    for command in commands.split("; ") {
        run(&format!("ip netns exec {} {command}", host.root));
    }
}
