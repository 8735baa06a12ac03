//! Public addresses, IMDS and DNS, with guests that have a TCP/IP stack.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::dns::{ANSWER, ask, ask_for, ask_over_tcp, resolver};
use common::wire::WiredGuest;
use common::{PATIENCE, TestHost, anywhere, cannot_run, eni, group, inside, metadata, run, tcp, two_guests};
use hearth_network::spec::VpcSpec;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, RecordType};

const ROUTER: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 1);
const PUBLIC: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 10);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// How long a connection is tried that must not come about.
const REFUSAL: Duration = Duration::from_millis(700);

/// One guest with a public address and one without, in a group that admits port 22.
async fn guests(host: &mut TestHost) -> (VpcSpec, WiredGuest, WiredGuest) {
    let (spec, one, two) = two_guests(host, Some(PUBLIC)).await;
    (spec, WiredGuest::new(one, ROUTER), WiredGuest::new(two, ROUTER))
}

/// Accepts one connection, answers the address that it came from, and echoes the next line.
fn greet(netns: &str, port: u16) {
    let listener = inside(netns, move || TcpListener::bind(("0.0.0.0", port)).unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let from = stream.peer_addr().unwrap().ip().to_string();
                stream.write_all(format!("{from}\n").as_bytes()).unwrap();
                let mut buffer = [0; 100];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    stream.write_all(&buffer[..length]).unwrap();
                }
            });
        }
    });
}

fn connect(netns: &str, to: Ipv4Addr, port: u16, patience: Duration) -> Option<(TcpStream, String)> {
    inside(netns, move || {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from((to, port)), patience).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut greeting = [0; 100];
        let length = stream.read(&mut greeting).unwrap();
        Some((
            stream,
            String::from_utf8_lossy(&greeting[..length]).trim().to_owned(),
        ))
    })
}

fn echoes(stream: &mut TcpStream, patience: Duration) -> bool {
    stream.set_read_timeout(Some(patience)).unwrap();
    stream.write_all(b"echo").unwrap();
    let mut buffer = [0; 100];
    matches!(stream.read(&mut buffer), Ok(4))
}

#[tokio::test(flavor = "multi_thread")]
async fn public_addresses() {
    if cannot_run("public_addresses") {
        return;
    }
    let mut host = TestHost::new().await;
    let (mut spec, one, two) = guests(&mut host).await;
    // An "internet" beyond the root namespace, which knows nothing of the pool.
    let internet = Internet::beyond(&host.root);
    for port in [22, 23] {
        greet(&one.netns, port);
        greet(&two.netns, port);
        greet(&host.root, 7000 + port);
        greet(&internet.0, port);
    }

    let (mut ssh, from) =
        connect(&host.root, PUBLIC, 22, PATIENCE).expect("the host reaches a public address");
    assert_eq!(from, GATEWAY.to_string());
    assert!(
        connect(&host.root, PUBLIC, 23, REFUSAL).is_none(),
        "the group does not admit 23"
    );
    let (_out, from) = connect(&one.netns, Internet::ADDRESS, 22, PATIENCE).expect("the way out");
    assert_eq!(from, Internet::ROUTER.to_string(), "masqueraded");
    assert!(
        connect(&two.netns, Internet::ADDRESS, 22, REFUSAL).is_none(),
        "no public address, no way out"
    );
    assert!(
        connect(&one.netns, GATEWAY, 7022, REFUSAL).is_none(),
        "a port of the host was open to a guest"
    );
    assert!(
        connect(&one.netns, Internet::ROUTER, 7022, REFUSAL).is_none(),
        "the host's other address, too"
    );
    // Through the public address, also from within: the source is public, too.
    let (_hairpin, from) =
        connect(&one.netns, PUBLIC, 22, PATIENCE).map_or((None, None), |(s, f)| (Some(s), Some(f)));
    eprintln!("to its own public address: {from:?}");

    // After a restart of the agent all that is adopted; open connections do not notice.
    let restarted = host.restarted().await;
    assert_eq!(restarted.vpcs().await.unwrap(), vec![spec.vpc_id.clone()]);
    drop(std::mem::replace(&mut host.network, restarted));
    host.apply(&spec).await;
    assert!(echoes(&mut ssh, PATIENCE), "a restart broke a connection");

    // The address moves to the other instance, and takes its connections away.
    spec.enis[0].public_ip = None;
    spec.enis[1].public_ip = Some(PUBLIC);
    host.network.apply_vpc(&spec).await.unwrap();
    assert!(!echoes(&mut ssh, REFUSAL), "a connection survived its address");
    let (_ssh, _) = connect(&host.root, PUBLIC, 22, PATIENCE).expect("the address in its new place");
    assert!(connect(&one.netns, Internet::ADDRESS, 22, REFUSAL).is_none());
}

struct Internet(String);

impl Internet {
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);
    const GATEWAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 254);
    const ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

    fn beyond(root: &str) -> Self {
        let name = format!("hnt-inet-{:012x}", rand::random::<u64>() >> 16);
        run(&format!(
            "ip netns add {name} && ip -n {root} link add wan type veth peer name eth0 netns {name} \
             && ip -n {root} addr add {}/24 dev wan && ip -n {root} link set wan up \
             && ip -n {name} addr add {}/24 dev eth0 && ip -n {name} link set eth0 up \
             && ip -n {name} link set lo up && ip -n {name} addr add {}/32 dev lo \
             && ip -n {root} route add default via {1}",
            Self::ROUTER,
            Self::GATEWAY,
            Self::ADDRESS
        ));
        Self(name)
    }
}

impl Drop for Internet {
    fn drop(&mut self) {
        let _ = std::process::Command::new("ip")
            .args(["netns", "del", &self.0])
            .status();
    }
}

/// One HTTP exchange; the status code and the body.
fn http(netns: &str, method: &str, path: &str, headers: &str) -> (u16, String) {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: imds\r\nConnection: close\r\n{headers}\r\n");
    let answer = inside(netns, move || {
        let address = SocketAddr::from(([169, 254, 169, 254], 80));
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_knows_its_caller() {
    if cannot_run("metadata_knows_its_caller") {
        return;
    }
    let mut host = TestHost::new().await;
    let (mut spec, one, two) = guests(&mut host).await;
    let id = "/latest/meta-data/instance-id";
    assert_eq!(http(&one.netns, "GET", id, ""), (200, format!("i-{:017x}", 0)));
    assert_eq!(http(&two.netns, "GET", id, ""), (200, format!("i-{:017x}", 1)));
    assert_eq!(one.lowest_imds_ttl.load(Ordering::Relaxed), 64);

    let ttl = "X-aws-ec2-metadata-token-ttl-seconds: 60\r\n";
    let (status, token) = http(&one.netns, "PUT", "/latest/api/token", ttl);
    assert_eq!(status, 200);
    assert_eq!(
        one.lowest_imds_ttl.load(Ordering::Relaxed),
        1,
        "the hop limit of the token's answer"
    );
    let header = format!("X-aws-ec2-metadata-token: {token}\r\n");
    assert_eq!(http(&one.netns, "GET", id, &header).0, 200);
    assert_eq!(http(&two.netns, "GET", id, &header).0, 401, "another's token");

    spec.enis[0].imds.tokens_required = true;
    spec.enis[1].imds.enabled = false;
    host.network.apply_vpc(&spec).await.unwrap();
    assert_eq!(
        http(&one.netns, "GET", id, "").0,
        401,
        "version 1 where 2 is required"
    );
    assert_eq!(http(&one.netns, "GET", id, &header).0, 200);
    assert_eq!(http(&two.netns, "GET", id, "").0, 403, "disabled");
}

/// The default VPCs of two accounts have the same addresses.
#[tokio::test(flavor = "multi_thread")]
async fn vpcs_with_the_same_addresses_are_apart() {
    if cannot_run("vpcs_with_the_same_addresses_are_apart") {
        return;
    }
    let mut host = TestHost::new().await;
    let (_spec, one, two) = guests(&mut host).await;
    let public = Ipv4Addr::new(198, 18, 0, 20);
    let mut other = host.vpc();
    let mut twin = eni(10);
    assert_eq!(twin.private_ip, Ipv4Addr::new(172, 31, 0, 10));
    twin.public_ip = Some(public);
    // By the id of the other VPC's group, and with another rule.
    let group = group(1, &[twin.private_ip], vec![tcp(23, anywhere())]);
    twin.security_group_ids = vec![group.group_id.clone()];
    other.enis = vec![twin];
    other.security_groups = vec![group];
    host.network.apply_vpc(&other).await.unwrap();
    let mut told = metadata(&other, 0);
    told.instance_id = format!("i-{:017x}", 7);
    host.remember(told);
    let twin = WiredGuest::new(host.guest(&other, 0).await, ROUTER);

    let id = "/latest/meta-data/instance-id";
    assert_eq!(http(&one.netns, "GET", id, "").1, format!("i-{:017x}", 0));
    assert_eq!(http(&twin.netns, "GET", id, "").1, format!("i-{:017x}", 7));
    for guest in [&one, &two, &twin] {
        greet(&guest.netns, 22);
        greet(&guest.netns, 23);
    }
    for (address, open, closed) in [(PUBLIC, 22, 23), (public, 23, 22)] {
        assert!(
            connect(&host.root, address, open, PATIENCE).is_some(),
            "{address}"
        );
        assert!(
            connect(&host.root, address, closed, REFUSAL).is_none(),
            "{address}"
        );
    }
    // A neighbour's private address is nobody's in the other VPC.
    assert!(connect(&one.netns, Ipv4Addr::new(172, 31, 0, 11), 22, PATIENCE).is_some());
    for port in [22, 23] {
        assert!(connect(&twin.netns, Ipv4Addr::new(172, 31, 0, 11), port, REFUSAL).is_none());
    }
    // To one another they are strangers, who come from their public addresses.
    let (_, from) = connect(&twin.netns, PUBLIC, 22, PATIENCE).expect("what the group admits");
    assert_eq!(from, public.to_string());
    assert!(
        connect(&one.netns, public, 22, REFUSAL).is_none(),
        "what it does not"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn dns_is_relayed() {
    if cannot_run("dns_is_relayed") {
        return;
    }
    let mut host = TestHost::new().await;
    host.config.resolvers = vec![resolver(&host.root)];
    host.network = host.restarted().await;
    let (_spec, one, _two) = guests(&mut host).await;
    for address in [Ipv4Addr::new(172, 31, 0, 2), Ipv4Addr::new(169, 254, 169, 253)] {
        let (udp, tcp) = inside(&one.netns, move || {
            let name = "name.example.";
            (
                ask(address, name, PATIENCE),
                ask_over_tcp(address, name, PATIENCE),
            )
        });
        for answer in [udp.expect("over UDP"), tcp.expect("over TCP")] {
            assert_eq!(answer.answers[0].data, RData::A(A(ANSWER)));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_know_each_other_by_name() {
    if cannot_run("instances_know_each_other_by_name") {
        return;
    }
    let mut host = TestHost::new().await;
    // Nobody else is needed for it.
    host.config.resolvers = vec!["127.0.0.1:9".parse().unwrap()];
    host.network = host.restarted().await;
    let (mut spec, one, _two) = guests(&mut host).await;
    let dns = Ipv4Addr::new(172, 31, 0, 2);
    let asked =
        |name: &'static str, kind| inside(&one.netns, move || ask_for(dns, name, kind, PATIENCE).unwrap());
    let address = |name| match asked(name, RecordType::A).answers.as_slice() {
        [record] => record.data.clone(),
        _ => panic!("{name} has no address"),
    };
    let a = |host| RData::A(A(Ipv4Addr::new(172, 31, 0, host)));
    assert_eq!(address("ip-172-31-0-10.ec2.internal."), a(10), "its own");
    assert_eq!(address("ip-172-31-0-11.ec2.internal."), a(11), "its neighbour's");
    let reverse = asked("11.0.31.172.in-addr.arpa.", RecordType::PTR);
    assert_eq!(
        reverse.answers[0].data.to_string(),
        "ip-172-31-0-11.ec2.internal."
    );
    let nobody = "ip-172-31-0-12.ec2.internal.";
    assert_eq!(
        asked(nobody, RecordType::A).metadata.response_code,
        ResponseCode::NXDomain
    );
    // What IMDS says is the same name.
    let path = "/latest/meta-data/local-hostname";
    assert_eq!(http(&one.netns, "GET", path, "").1, "ip-172-31-0-10.ec2.internal");

    // One that goes takes its name along; one that comes has it at once.
    spec.enis[1] = common::eni(12);
    host.network.apply_vpc(&spec).await.unwrap();
    assert_eq!(address(nobody), a(12));
    let gone = asked("ip-172-31-0-11.ec2.internal.", RecordType::A);
    assert_eq!(gone.metadata.response_code, ResponseCode::NXDomain);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_resolvers_are_an_answer_in_time() {
    if cannot_run("dead_resolvers_are_an_answer_in_time") {
        return;
    }
    let mut host = TestHost::new().await;
    // One that is silent, and one that is closed.
    let silent = inside(&host.root, || std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
    host.config.resolvers = vec![silent.local_addr().unwrap(), "127.0.0.1:9".parse().unwrap()];
    host.network = host.restarted().await;
    let (_spec, one, _two) = guests(&mut host).await;
    inside(&one.netns, || {
        let dns = Ipv4Addr::new(172, 31, 0, 2);
        // A stub resolver's patience, resolv.conf(5).
        let patience = Duration::from_secs(5);
        for answer in [
            ask(dns, "example.com.", patience),
            ask_over_tcp(dns, "example.com.", patience),
        ] {
            assert_eq!(
                answer.expect("an answer").metadata.response_code,
                ResponseCode::ServFail
            );
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_resolver_costs_its_first_questions_only() {
    if cannot_run("a_dead_resolver_costs_its_first_questions_only") {
        return;
    }
    let mut host = TestHost::new().await;
    let silent = inside(&host.root, || std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
    host.config.resolvers = vec![silent.local_addr().unwrap(), resolver(&host.root)];
    host.network = host.restarted().await;
    let (_spec, one, _two) = guests(&mut host).await;
    inside(&one.netns, || {
        let dns = Ipv4Addr::new(172, 31, 0, 2);
        assert!(ask(dns, "example.com.", PATIENCE).is_some());
        let begun = std::time::Instant::now();
        for _ in 0..9 {
            assert!(ask(dns, "example.com.", PATIENCE).is_some());
        }
        // Each would cost 2 s.
        assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    });
}
