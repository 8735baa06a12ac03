//! A guest that means ill: forged frames, closed ports, and garbage for its servers.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use common::dns::{ANSWER, ask, ask_over_tcp, question, resolver};
use common::frames::{DNS, GATEWAY, IMDS, INTERNET, Ip, PUBLIC, ROUTER, ethernet, forged, tcp_flags, udp};
use common::wire::WiredGuest;
use common::{
    Guest, PATIENCE, ROUTER_MAC, SILENCE, TestHost, VNET_HEADER, cannot_run, echo_reply, inside, run,
    tcp_ports, two_guests, udp_datagram,
};
use dhcproto::v4::{DhcpOption, Message, MessageType};
use dhcproto::{Decodable as _, Encodable as _};
use hearth_network::names::uplink_name;
use hearth_network::spec::VpcSpec;
use hickory_proto::rr::RData;
use hickory_proto::rr::rdata::A;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike, recv, socket,
};
use rand::rngs::StdRng;
use rand::{Rng as _, RngCore as _, SeedableRng as _};

/// Where a frame came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// At the neighbour's NIC.
    Neighbour,
    /// On the uplink: at the host, or on its way out.
    Outside,
    /// Back at the attacker's, as an answer. ICMP errors are none.
    Answered,
}

/// Looks at every place that a frame of `one`'s could come out at.
struct Watch {
    one: Guest,
    two: Guest,
    /// Everything that comes out of the VPC's namespace.
    uplink: OwnedFd,
    round: u16,
}

impl Watch {
    fn new(root: &str, spec: &VpcSpec, one: Guest, two: Guest) -> Self {
        let name = uplink_name(&spec.vpc_id);
        let uplink = inside(root, move || {
            let flags = SockFlag::SOCK_NONBLOCK;
            let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll).unwrap();
            let index = nix::net::if_::if_nametoindex(name.as_str()).unwrap();
            // SAFETY: an all-zero `sockaddr_ll` is valid.
            let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
            address.sll_ifindex = index as i32;
            let length = size_of_val(&address) as libc::socklen_t;
            // SAFETY: the address lives and has that length.
            let address = unsafe { LinkAddr::from_raw((&raw const address).cast(), Some(length)) };
            nix::sys::socket::bind(socket.as_raw_fd(), &address.unwrap()).unwrap();
            socket
        });
        Self {
            one,
            two,
            uplink,
            round: 0,
        }
    }

    /// Writes the frame, then one that must arrive at each place, and tells where else than those something came out.
    fn places(&mut self, frame: &[u8]) -> Vec<Place> {
        self.round += 1;
        let marker = 20_000 + self.round;
        // A TAP refuses what is no frame at all.
        let mut packet = vec![0; VNET_HEADER];
        packet.extend_from_slice(frame);
        let _ = (&self.one.tap).write(&packet);
        self.one.send(&self.one.syn(self.two.ip, marker, 22));
        let out = Ip::new(
            self.one.ip,
            GATEWAY,
            17,
            udp(self.one.ip, GATEWAY, (marker, 9), b"marker"),
        );
        self.one
            .send(&ethernet(ROUTER_MAC, self.one.mac, 0x0800, &out.bytes()));
        self.one.send(&self.one.ping(ROUTER, marker));
        let mut found = Vec::new();
        let mut waiting = [true; 3];
        let end = Instant::now() + PATIENCE;
        while waiting.contains(&true) {
            assert!(Instant::now() < end, "the markers did not arrive: {waiting:?}");
            self.look(&mut found, &mut waiting, marker);
        }
        found
    }

    fn look(&self, found: &mut Vec<Place>, waiting: &mut [bool; 3], marker: u16) {
        let mut buffer = [0; 70_000];
        while let Some(frame) = read(&self.two, &mut buffer) {
            match tcp_ports(frame) {
                Some((from, 22)) if from == marker => waiting[0] = false,
                _ => found.push(Place::Neighbour),
            }
        }
        while let Ok(length) = recv(self.uplink.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            let frame = &buffer[..length];
            match udp_datagram(frame) {
                Some((_, _, from, 9, _)) if from == marker => waiting[1] = false,
                // What the host sends into the VPC is no leak out of it.
                _ if frame.get(6..12) == Some(&[0x02, 0x68, 0x76, 0, 0, 1]) => {}
                _ => found.push(Place::Outside),
            }
        }
        while let Some(frame) = read(&self.one, &mut buffer) {
            match echo_reply(frame) {
                Some(id) if id == marker => waiting[2] = false,
                _ if is_icmp_error(frame) => {}
                _ => found.push(Place::Answered),
            }
        }
    }

    /// What comes out late, of whichever frame.
    fn stragglers(&self) -> Vec<Place> {
        std::thread::sleep(SILENCE);
        let mut found = Vec::new();
        self.look(&mut found, &mut [false; 3], 0);
        found
    }
}

fn read<'a>(guest: &Guest, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    match (&guest.tap).read(buffer) {
        Ok(length) => Some(&buffer[VNET_HEADER..length]),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("reading a TAP: {error}"),
    }
}

/// Destination unreachable, time exceeded, parameter problem.
fn is_icmp_error(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[8, 0])
        && frame.get(23) == Some(&1)
        && matches!(frame.get(34), Some(3 | 11 | 12))
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_frames_come_out_nowhere() {
    if cannot_run("forged_frames_come_out_nowhere") {
        return;
    }
    let mut host = TestHost::new().await;
    host.config.resolvers = vec![resolver(&host.root)];
    host.network = host.restarted().await;
    let (spec, one, two) = two_guests(&mut host, Some(PUBLIC)).await;
    let root = host.root.clone();
    let vpc_id = spec.vpc_id.clone();
    let neighbours = move || run(&format!("ip -n {vpc_id} neigh | sort"));
    let before = neighbours();
    tokio::task::spawn_blocking(move || {
        let frames = forged(&one, &two);
        let allowed = allowed(&one, &two);
        let mut watch = Watch::new(&root, &spec, one, two);
        // The same eyes see what may pass: otherwise they would see nothing.
        for (name, frame, place) in allowed {
            let mut places = watch.places(&frame);
            let end = Instant::now() + PATIENCE;
            while places.is_empty() && Instant::now() < end {
                places = watch.stragglers();
            }
            assert!(!places.is_empty(), "{name} was not seen");
            assert!(places.iter().all(|seen| *seen == place), "{name}: {places:?}");
        }
        let mut out = Vec::new();
        for (name, frame) in &frames {
            let places = watch.places(frame);
            if !places.is_empty() {
                out.push(format!("{name}: {places:?}"));
            }
        }
        let late = watch.stragglers();
        eprintln!(
            "{} of {} forged frames were held",
            frames.len() - out.len(),
            frames.len()
        );
        assert!(frames.len() >= 39);
        assert!(out.is_empty(), "{out:#?}");
        assert!(late.is_empty(), "later: {late:?}");
        assert_eq!(neighbours(), before, "the neighbour table");
    })
    .await
    .unwrap();
}

/// Frames that must come out, and where.
fn allowed(one: &Guest, two: &Guest) -> Vec<(&'static str, Vec<u8>, Place)> {
    let ip = |packet: &Ip| ethernet(ROUTER_MAC, one.mac, 0x0800, &packet.bytes());
    let syn = |to, port| Ip::new(one.ip, to, 6, tcp_flags(one.ip, to, (6100, port), 2));
    let question = udp(one.ip, DNS, (6100, 53), &question("example.com."));
    let arp = one.arp_request(one.mac, one.ip, two.ip);
    vec![
        ("a SYN to port 22", ip(&syn(two.ip, 22)), Place::Neighbour),
        ("a SYN to the internet", ip(&syn(INTERNET, 80)), Place::Outside),
        (
            "a datagram to the host",
            ip(&Ip::new(
                one.ip,
                GATEWAY,
                17,
                udp(one.ip, GATEWAY, (6100, 7), b"x"),
            )),
            Place::Outside,
        ),
        ("a SYN to IMDS", ip(&syn(IMDS, 80)), Place::Answered),
        ("ARP for the neighbour", arp, Place::Answered),
        (
            "a question to DNS",
            ip(&Ip::new(one.ip, DNS, 17, question)),
            Place::Answered,
        ),
    ]
}

/// Ports that hosts of this kind listen on.
const PORTS: [u16; 30] = [
    21, 22, 23, 25, 53, 67, 80, 111, 123, 139, 179, 389, 443, 445, 631, 2049, 2375, 2379, 3000, 3306, 4789,
    5432, 5900, 6379, 6443, 7600, 7601, 8080, 9090, 10250,
];

#[tokio::test(flavor = "multi_thread")]
async fn no_port_of_the_host_answers() {
    if cannot_run("no_port_of_the_host_answers") {
        return;
    }
    let mut host = TestHost::new().await;
    let (spec, one, two) = two_guests(&mut host, Some(PUBLIC)).await;
    let (one, two) = (WiredGuest::new(one, ROUTER), WiredGuest::new(two, ROUTER));
    let elsewhere = Ipv4Addr::new(203, 0, 113, 1);
    run(&format!("ip -n {} addr add {elsewhere}/32 dev lo", host.root));
    let listening = [listen(&host.root), listen(&spec.vpc_id), listen(&two.netns)];
    // Who may, finds them all open.
    assert_eq!(open(&host.root, elsewhere).len(), 2 * PORTS.len());
    // The VPC's own servers have four of these.
    assert_eq!(open(&spec.vpc_id, Ipv4Addr::LOCALHOST).len(), 2 * PORTS.len() - 4);
    assert_eq!(open(&one.netns, Ipv4Addr::new(172, 31, 0, 11)), ["tcp 22"]);
    for (name, to) in [
        ("the host's end of the uplink", GATEWAY),
        ("another address of the host", elsewhere),
        ("the router", ROUTER),
    ] {
        let open = open(&one.netns, to);
        eprintln!(
            "{name}: {} of {} ports held",
            2 * PORTS.len() - open.len(),
            2 * PORTS.len()
        );
        assert!(open.is_empty(), "{name}: {open:?}");
    }
    drop(listening);
}

/// TCP and UDP on [`PORTS`] of a namespace, where they are not taken; datagrams are echoed.
fn listen(netns: &str) -> Vec<TcpListener> {
    inside(netns, || {
        for port in PORTS {
            if let Ok(socket) = UdpSocket::bind(("0.0.0.0", port)) {
                std::thread::spawn(move || {
                    let mut buffer = [0; 100];
                    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                        let _ = socket.send_to(&buffer[..length], from);
                    }
                });
            }
        }
        let tcp = PORTS.iter().map(|port| TcpListener::bind(("0.0.0.0", *port)));
        tcp.flatten().collect()
    })
}

/// Which of [`PORTS`] answer, seen from a namespace.
fn open(netns: &str, to: Ipv4Addr) -> Vec<String> {
    const SHORT: Duration = Duration::from_secs(2);
    inside(netns, move || {
        let probes: Vec<_> = PORTS
            .iter()
            .flat_map(|port| [("tcp", *port), ("udp", *port)])
            .map(|(protocol, port)| {
                std::thread::spawn(move || {
                    let address = SocketAddr::from((to, port));
                    let answered = if protocol == "tcp" {
                        TcpStream::connect_timeout(&address, SHORT).is_ok()
                    } else {
                        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                        socket.set_read_timeout(Some(SHORT)).unwrap();
                        socket.connect(address).unwrap();
                        let _ = socket.send(b"probe");
                        socket.recv(&mut [0; 100]).is_ok()
                    };
                    answered.then(|| format!("{protocol} {port}"))
                })
            })
            .collect();
        probes
            .into_iter()
            .filter_map(|probe| probe.join().unwrap())
            .collect()
    })
}

/// Reproducible: the seed is told.
fn dice() -> StdRng {
    let seed: u64 = rand::random();
    eprintln!("seed {seed}");
    StdRng::seed_from_u64(seed)
}

/// Random bytes, or the message with some of its bytes changed, its end cut or drawn out.
fn garbage(dice: &mut StdRng, message: &[u8], most: usize) -> Vec<u8> {
    if dice.random_bool(0.3) {
        let mut bytes = vec![0; dice.random_range(0..most)];
        dice.fill_bytes(&mut bytes);
        return bytes;
    }
    let mut bytes = message.to_vec();
    for _ in 0..dice.random_range(1..8) {
        if !bytes.is_empty() {
            let at = dice.random_range(0..bytes.len());
            bytes[at] = dice.random();
        }
    }
    match dice.random_range(0..4) {
        0 => bytes.truncate(dice.random_range(0..=bytes.len())),
        1 => bytes.resize(
            dice.random_range(bytes.len()..=most.max(bytes.len())),
            dice.random(),
        ),
        _ => {}
    }
    bytes
}

/// Rounds of garbage, between which the server is asked rightly.
const ROUNDS: usize = 8;
const PER_ROUND: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn dhcp_outlives_garbage() {
    if cannot_run("dhcp_outlives_garbage") {
        return;
    }
    let mut host = TestHost::new().await;
    let (_spec, one, _two) = two_guests(&mut host, Some(PUBLIC)).await;
    tokio::task::spawn_blocking(move || {
        let mut dice = dice();
        let mut discover = Message::default();
        discover.set_chaddr(&one.mac);
        discover
            .opts_mut()
            .insert(DhcpOption::MessageType(MessageType::Discover));
        let discover = discover.to_vec().unwrap();
        let unnumbered = Guest {
            tap: one.tap.try_clone().unwrap(),
            mac: one.mac,
            ip: Ipv4Addr::UNSPECIFIED,
        };
        let send = |payload: &[u8]| {
            let mut frame = unnumbered.udp(Ipv4Addr::BROADCAST, 68, 67, payload);
            frame[..6].fill(0xff);
            one.send(&frame);
        };
        for _ in 0..ROUNDS {
            for _ in 0..PER_ROUND {
                send(&garbage(&mut dice, &discover, 1400));
            }
            // The rate allows it again soon.
            let end = Instant::now() + PATIENCE;
            let offered = std::iter::repeat_with(|| {
                let xid: u32 = dice.random();
                let mut asked = discover.clone();
                asked[4..8].copy_from_slice(&xid.to_be_bytes());
                send(&asked);
                one.receive(Duration::from_millis(300), |frame| match udp_datagram(frame)? {
                    (_, _, 67, 68, payload) => Message::from_bytes(&payload).ok().filter(|m| m.xid() == xid),
                    _ => None,
                })
            })
            .take_while(|_| Instant::now() < end)
            .flatten()
            .next();
            assert_eq!(offered.expect("an offer").yiaddr(), one.ip);
        }
        eprintln!("{} pieces of garbage for DHCP", ROUNDS * PER_ROUND);
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn dns_outlives_garbage() {
    if cannot_run("dns_outlives_garbage") {
        return;
    }
    let mut host = TestHost::new().await;
    host.config.resolvers = vec![resolver(&host.root)];
    host.network = host.restarted().await;
    let (_spec, one, _two) = two_guests(&mut host, Some(PUBLIC)).await;
    let one = WiredGuest::new(one, ROUTER);
    inside(&one.netns, || {
        let mut dice = dice();
        let rightly = |answer: Option<hickory_proto::op::Message>| {
            assert_eq!(answer.expect("an answer").answers[0].data, RData::A(A(ANSWER)));
        };
        let good = question("name.example.com.");
        let mut framed = vec![0, good.len() as u8];
        framed.extend(&good);
        for _ in 0..ROUNDS {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.connect((DNS, 53)).unwrap();
            for _ in 0..PER_ROUND {
                let _ = socket.send(&garbage(&mut dice, &good, 1472));
            }
            for _ in 0..PER_ROUND / 10 {
                if let Ok(mut stream) = TcpStream::connect_timeout(&(DNS, 53).into(), PATIENCE) {
                    let _ = stream.write_all(&garbage(&mut dice, &framed, 5000));
                }
            }
            std::thread::sleep(Duration::from_millis(200));
            rightly(until(|| ask(DNS, "name.example.com.", Duration::from_secs(2))));
            rightly(until(|| {
                ask_over_tcp(DNS, "name.example.com.", Duration::from_secs(2))
            }));
        }
        eprintln!(
            "{} pieces of garbage for DNS",
            ROUNDS * (PER_ROUND + PER_ROUND / 10)
        );
    });
}

/// The first answer that comes; its own garbage may have cost the guest its share for a while.
fn until<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + 3 * PATIENCE;
    while Instant::now() < end {
        if let Some(answer) = ask() {
            return Some(answer);
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn imds_outlives_garbage() {
    if cannot_run("imds_outlives_garbage") {
        return;
    }
    let mut host = TestHost::new().await;
    let (_spec, one, _two) = two_guests(&mut host, Some(PUBLIC)).await;
    let one = WiredGuest::new(one, ROUTER);
    inside(&one.netns, || {
        let mut dice = dice();
        let connect = || TcpStream::connect_timeout(&(IMDS, 80).into(), PATIENCE);
        let good =
            "PUT /latest/api/token HTTP/1.1\r\nHost: x\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n";
        let get = "GET /latest/meta-data/instance-id HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let asked = || {
            let mut stream = connect().ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
            stream.write_all(get.as_bytes()).ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok()?;
            answer.ends_with(&format!("i-{:017x}", 0)).then_some(answer)
        };
        for _ in 0..ROUNDS {
            for n in 0..PER_ROUND / 2 {
                let Ok(mut stream) = connect() else { continue };
                let message = match n % 4 {
                    0 => garbage(&mut dice, get.as_bytes(), 4000),
                    1 => garbage(&mut dice, good.as_bytes(), 4000),
                    // A header without an end, and a body without one.
                    2 => [b"GET / HTTP/1.1\r\nX: ".as_slice(), &vec![b'a'; 100_000]].concat(),
                    _ => {
                        let head = good.replace("Host", "Content-Length: 999999999999\r\nHost");
                        [head.as_bytes(), &vec![0; 100_000]].concat()
                    }
                };
                stream.set_write_timeout(Some(PATIENCE)).unwrap();
                let _ = stream.write_all(&message);
            }
            assert!(until(asked).is_some(), "no answer");
        }
        eprintln!("{} pieces of garbage for IMDS", ROUNDS * PER_ROUND / 2);
    });
}
