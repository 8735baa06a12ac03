//! A host of the test's own: a "root" namespace, a network on it, and guests that are driven frame by frame.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use etherparse::{PacketBuilder, SlicedPacket};
use hearth_network::metadata::SecurityGroupName;
use hearth_network::spec::{
    EniSpec, ImdsOptions, Peer, Protocol, RuleSpec, SecurityGroupSpec, SubnetSpec, VpcSpec,
};
use hearth_network::{InstanceMetadata, MetadataSource, Network, NetworkConfig, PublicKey, RoleCredentials};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

pub mod dns;
pub mod frames;
pub mod wire;

pub const VNET_HEADER: usize = 12;
/// How long a packet that must come may take.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long a packet that must not come is waited for, after one that was sent later has come.
pub const SILENCE: Duration = Duration::from_millis(150);

/// Why a test cannot run here, said loudly.
pub fn cannot_run(test: &str) -> bool {
    let missing = if !nix::unistd::geteuid().is_root() {
        "needs root"
    } else if !std::path::Path::new("/dev/net/tun").exists() {
        "needs /dev/net/tun"
    } else if Command::new("nft").arg("--version").output().is_err() {
        "needs nft"
    } else {
        return false;
    };
    eprintln!("SKIPPED: {test}: {missing}");
    true
}

pub fn run(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[derive(Default)]
pub struct Directory(pub Mutex<HashMap<(String, Ipv4Addr), Arc<InstanceMetadata>>>);

impl MetadataSource for Directory {
    fn by_address(&self, vpc_id: &str, ip: Ipv4Addr) -> Option<Arc<InstanceMetadata>> {
        self.0.lock().unwrap().get(&(vpc_id.to_owned(), ip)).cloned()
    }

    fn credentials(&self, _: &str) -> Option<Arc<RoleCredentials>> {
        None
    }
}

pub struct TestHost {
    pub network: Network,
    pub directory: Arc<Directory>,
    pub config: NetworkConfig,
    pub root: String,
    _state: tempfile::TempDir,
    vpcs: Vec<String>,
}

impl TestHost {
    pub async fn new() -> Self {
        let root = format!("hnt-root-{:012x}", rand::random::<u64>() >> 16);
        // A new namespace takes the switch of the host that the test runs on, where a cloud may have turned it on.
        run(&format!(
            "ip netns add {root} && ip -n {root} link set lo up && ip netns exec {root} sysctl -qw net.ipv4.ip_forward=0"
        ));
        let state = tempfile::tempdir().unwrap();
        let mut config = NetworkConfig::new(state.path().join("vpcs"), [7; 32]);
        config.root_netns = Some(format!("/run/netns/{root}").into());
        let directory = Arc::new(Directory::default());
        let network = Network::new(config.clone(), directory.clone()).await.unwrap();
        Self {
            network,
            directory,
            config,
            root,
            _state: state,
            vpcs: Vec::new(),
        }
    }

    /// The same agent after a restart.
    pub async fn restarted(&self) -> Network {
        Network::new(self.config.clone(), self.directory.clone())
            .await
            .unwrap()
    }

    /// An empty VPC that is removed with the host.
    pub fn vpc(&mut self) -> VpcSpec {
        let vpc_id = format!("vpc-{:017x}", rand::random::<u128>() >> 60);
        self.vpcs.push(vpc_id.clone());
        VpcSpec {
            vpc_id,
            cidr: "172.31.0.0/16".parse().unwrap(),
            public_pool: "198.18.0.0/24".parse().unwrap(),
            enis: Vec::new(),
            security_groups: Vec::new(),
            subnets: vec![subnet("172.31.0.0/20", &["0.0.0.0/0"])],
            dns: true,
        }
    }

    pub async fn guest(&self, spec: &VpcSpec, index: usize) -> Guest {
        let eni = &spec.enis[index];
        let mut taps = self.network.open_tap(&spec.vpc_id, &eni.eni_id, 1).await.unwrap();
        Guest {
            tap: File::from(taps.remove(0)),
            mac: eni.mac,
            ip: eni.private_ip,
        }
    }

    /// Applies the specification after a restart: the servers of the agent before end with their last task's turn.
    pub async fn apply(&self, spec: &VpcSpec) {
        let applied = async {
            while self.network.apply_vpc(spec).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, applied).await.unwrap();
    }

    /// The host's own address towards [`TestHost::outside`].
    pub const WAN: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

    /// Somebody in the internet, who is driven frame by frame.
    pub fn outside(&self) -> Guest {
        let tap = inside(&self.root, || wire::open_tap("wan"));
        let guest = Guest {
            tap,
            mac: [0x06, 0, 0, 0, 1, 0],
            ip: Ipv4Addr::new(198, 51, 100, 9),
        };
        let mac = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
        run(&format!(
            "ip -n {0} link set wan address {1} up && ip -n {0} addr add {2}/24 dev wan && \
             ip -n {0} neigh add 203.0.113.254 lladdr {3} dev wan && \
             ip -n {0} route add default via 203.0.113.254",
            self.root,
            mac(ROUTER_MAC),
            Self::WAN,
            mac(guest.mac)
        ));
        guest
    }

    pub fn remember(&self, metadata: InstanceMetadata) {
        let key = (metadata.vpc_id.clone(), metadata.local_ipv4);
        self.directory.0.lock().unwrap().insert(key, Arc::new(metadata));
    }
}

impl Drop for TestHost {
    fn drop(&mut self) {
        for vpc in &self.vpcs {
            let _ = Command::new("ip")
                .args(["netns", "del", vpc])
                .stderr(std::process::Stdio::null())
                .status();
        }
        let _ = Command::new("ip").args(["netns", "del", &self.root]).status();
    }
}

/// A subnet that reaches `internet`.
pub fn subnet(cidr: &str, internet: &[&str]) -> SubnetSpec {
    SubnetSpec {
        subnet_id: format!("subnet-{:017x}", rand::random::<u64>()),
        cidr: cidr.parse().unwrap(),
        internet: internet.iter().map(|block| block.parse().unwrap()).collect(),
    }
}

pub fn eni(host_part: u8) -> EniSpec {
    EniSpec {
        eni_id: format!("eni-{host_part:02x}{:015x}", rand::random::<u64>() >> 4),
        mac: [0x06, 0, 0, 0, 0, host_part],
        private_ip: Ipv4Addr::new(172, 31, 0, host_part),
        subnet: "172.31.0.0/20".parse().unwrap(),
        public_ip: None,
        security_group_ids: Vec::new(),
        hostname: format!("ip-172-31-0-{host_part}.ec2.internal"),
        imds: ImdsOptions {
            enabled: true,
            tokens_required: false,
            hop_limit: 1,
        },
    }
}

pub fn anywhere() -> Peer {
    Peer::Cidr("0.0.0.0/0".parse().unwrap())
}

pub fn tcp(port: u16, peer: Peer) -> RuleSpec {
    RuleSpec {
        protocol: Protocol::Tcp { from: port, to: port },
        peer,
    }
}

/// Admits what `ingress` says and lets everything out.
pub fn group(digit: u8, members: &[Ipv4Addr], ingress: Vec<RuleSpec>) -> SecurityGroupSpec {
    SecurityGroupSpec {
        group_id: format!("sg-{digit:017x}"),
        members: members.to_vec(),
        ingress,
        egress: vec![RuleSpec {
            protocol: Protocol::All,
            peer: anywhere(),
        }],
    }
}

/// Two guests of a group that admits port 22; the first has `public` as its public address.
pub async fn two_guests(host: &mut TestHost, public: Option<Ipv4Addr>) -> (VpcSpec, Guest, Guest) {
    let mut spec = host.vpc();
    let (mut one, mut two) = (eni(10), eni(11));
    one.public_ip = public;
    let web = group(1, &[one.private_ip, two.private_ip], vec![tcp(22, anywhere())]);
    one.security_group_ids = vec![web.group_id.clone()];
    two.security_group_ids = vec![web.group_id.clone()];
    spec.enis = vec![one, two];
    spec.security_groups = vec![web];
    host.network.apply_vpc(&spec).await.unwrap();
    for index in 0..2 {
        host.remember(metadata(&spec, index));
    }
    let (one, two) = (host.guest(&spec, 0).await, host.guest(&spec, 1).await);
    (spec, one, two)
}

pub fn metadata(spec: &VpcSpec, index: usize) -> InstanceMetadata {
    let eni = &spec.enis[index];
    InstanceMetadata {
        instance_id: format!("i-{index:017x}"),
        ami_id: "ami-00000000000000001".into(),
        ami_launch_index: 0,
        instance_type: "t2.micro".into(),
        reservation_id: "r-00000000000000001".into(),
        owner_id: "000000000000".into(),
        region: "us-east-1".into(),
        availability_zone: "us-east-1a".into(),
        availability_zone_id: "use1-az1".into(),
        root_device_name: "/dev/xvda".into(),
        ebs_device_names: Vec::new(),
        store_device_names: Vec::new(),
        local_hostname: eni.hostname.clone(),
        public_hostname: None,
        interface_id: eni.eni_id.clone(),
        mac: eni.mac,
        local_ipv4: eni.private_ip,
        public_ipv4: eni.public_ip,
        subnet_id: "subnet-00000000000000001".into(),
        subnet_cidr: eni.subnet,
        vpc_id: spec.vpc_id.clone(),
        vpc_cidrs: vec![spec.cidr],
        security_groups: vec![SecurityGroupName {
            group_id: "sg-1".into(),
            group_name: "default".into(),
        }],
        public_keys: vec![PublicKey {
            key_name: "k".into(),
            openssh: "ssh-ed25519 AAAA k".into(),
        }],
        user_data: Some(b"#!/bin/sh\necho hello\n".to_vec()),
        tags: None,
        instance_profile: None,
        launch_time: SystemTime::UNIX_EPOCH,
    }
}

/// One end of a TAP: a guest without an operating system.
pub struct Guest {
    pub tap: File,
    pub mac: [u8; 6],
    pub ip: Ipv4Addr,
}

pub const ROUTER_MAC: [u8; 6] = [0x02, 0x68, 0x76, 0, 0, 3];

impl Guest {
    pub fn send(&self, frame: &[u8]) {
        let mut packet = vec![0; VNET_HEADER];
        packet.extend_from_slice(frame);
        (&self.tap).write_all(&packet).unwrap();
    }

    /// The next frame that `wanted` finds something in; frames that it does not want are passed over.
    pub fn receive<T>(&self, patience: Duration, wanted: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
        let end = Instant::now() + patience;
        let mut buffer = [0; 65_600];
        loop {
            match (&self.tap).read(&mut buffer) {
                Ok(length) => {
                    if let Some(found) = wanted(&buffer[VNET_HEADER..length]) {
                        return Some(found);
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    let left = end.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return None;
                    }
                    let timeout = PollTimeout::try_from(left).unwrap();
                    poll(&mut [PollFd::new(self.tap.as_fd(), PollFlags::POLLIN)], timeout).unwrap();
                }
                Err(e) => panic!("reading the TAP: {e}"),
            }
        }
    }

    pub fn syn(&self, to: Ipv4Addr, from_port: u16, port: u16) -> Vec<u8> {
        self.syn_as(self.mac, self.ip, to, from_port, port)
    }

    pub fn syn_as(&self, mac: [u8; 6], ip: Ipv4Addr, to: Ipv4Addr, from_port: u16, port: u16) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2(mac, ROUTER_MAC)
            .ipv4(ip.octets(), to.octets(), 64)
            .tcp(from_port, port, 1000, 64_000)
            .syn();
        written(builder, &[])
    }

    /// The second packet of a connection, and what `established` is for conntrack.
    pub fn syn_ack(&self, to: Ipv4Addr, port: u16, to_port: u16) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2(self.mac, ROUTER_MAC)
            .ipv4(self.ip.octets(), to.octets(), 64)
            .tcp(port, to_port, 5000, 64_000)
            .syn()
            .ack(1001);
        written(builder, &[])
    }

    pub fn ack(&self, to: Ipv4Addr, from_port: u16, port: u16, payload: &[u8]) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2(self.mac, ROUTER_MAC)
            .ipv4(self.ip.octets(), to.octets(), 64)
            .tcp(from_port, port, 1001, 64_000)
            .ack(5001);
        written(builder, payload)
    }

    /// What the end of a connection sends that answered with [`Guest::syn_ack`].
    pub fn data(&self, to: Ipv4Addr, port: u16, to_port: u16) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2(self.mac, ROUTER_MAC)
            .ipv4(self.ip.octets(), to.octets(), 64)
            .tcp(port, to_port, 5001, 64_000)
            .ack(1001);
        written(builder, b"more")
    }

    pub fn udp(&self, to: Ipv4Addr, from_port: u16, port: u16, payload: &[u8]) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2(self.mac, ROUTER_MAC)
            .ipv4(self.ip.octets(), to.octets(), 64)
            .udp(from_port, port);
        let mut frame = Vec::new();
        builder.write(&mut frame, payload).unwrap();
        frame
    }

    pub fn ping(&self, to: Ipv4Addr, id: u16) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2(self.mac, ROUTER_MAC)
            .ipv4(self.ip.octets(), to.octets(), 64)
            .icmpv4_echo_request(id, 1);
        let mut frame = Vec::new();
        builder.write(&mut frame, b"hearth").unwrap();
        frame
    }

    pub fn arp_request(&self, mac: [u8; 6], ip: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
        let mut frame = vec![0xff; 6];
        frame.extend_from_slice(&self.mac);
        frame.extend_from_slice(&[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
        frame.extend_from_slice(&mac);
        frame.extend_from_slice(&ip.octets());
        frame.extend_from_slice(&[0; 6]);
        frame.extend_from_slice(&target.octets());
        frame
    }

    /// Whether a TCP segment from `from_port` to `port` arrives.
    pub fn sees_tcp(&self, from_port: u16, port: u16) -> bool {
        self.receive(PATIENCE, |frame| {
            tcp_ports(frame).filter(|ports| *ports == (from_port, port))
        })
        .is_some()
    }

    /// Whether none of the segments that arrive before `marker`'s (source port) is from `from_port`.
    pub fn sees_only(&self, marker: u16, from_port: u16) -> bool {
        let mut seen = std::cell::Cell::new(false);
        let marked = self.receive(PATIENCE, |frame| match tcp_ports(frame) {
            Some((from, _)) if from == from_port => {
                seen.set(true);
                None
            }
            Some((from, _)) if from == marker => Some(()),
            _ => None,
        });
        assert!(marked.is_some(), "the packet that must arrive did not");
        !*seen.get_mut()
            && self
                .receive(SILENCE, |frame| tcp_ports(frame).filter(|p| p.0 == from_port))
                .is_none()
    }

    /// The source ports of all TCP segments that arrive, to `marker`'s and for a while after it.
    pub fn tcp_sources_until(&self, marker: u16) -> Vec<u16> {
        let seen = std::cell::RefCell::new(Vec::new());
        let note = |frame: &[u8]| {
            let (from, _) = tcp_ports(frame)?;
            seen.borrow_mut().push(from);
            (from == marker).then_some(())
        };
        self.receive(PATIENCE, note).expect("the packet that must arrive");
        self.receive(SILENCE, note);
        seen.into_inner()
    }

    /// The MAC that an ARP reply for `target` tells.
    pub fn sees_arp_reply(&self, target: Ipv4Addr, patience: Duration) -> Option<[u8; 6]> {
        self.receive(patience, |frame| {
            let reply = frame.get(12..14)? == [0x08, 0x06] && frame.get(20..22)? == [0, 2];
            let sender = frame.get(28..32)? == target.octets();
            (reply && sender)
                .then(|| frame.get(22..28)?.try_into().ok())
                .flatten()
        })
    }
}

fn written(builder: etherparse::PacketBuilderStep<etherparse::TcpHeader>, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    builder.write(&mut frame, payload).unwrap();
    frame
}

/// Source and destination port.
pub fn tcp_ports(frame: &[u8]) -> Option<(u16, u16)> {
    match SlicedPacket::from_ethernet(frame).ok()?.transport? {
        etherparse::TransportSlice::Tcp(tcp) => Some((tcp.source_port(), tcp.destination_port())),
        _ => None,
    }
}

/// Source and destination of an IPv4 packet, ports and payload.
pub type Datagram = (Ipv4Addr, Ipv4Addr, u16, u16, Vec<u8>);

pub fn udp_datagram(frame: &[u8]) -> Option<Datagram> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let Some(etherparse::NetSlice::Ipv4(ip)) = &packet.net else {
        return None;
    };
    let (from, to) = (ip.header().source_addr(), ip.header().destination_addr());
    match packet.transport? {
        etherparse::TransportSlice::Udp(udp) => Some((
            from,
            to,
            udp.source_port(),
            udp.destination_port(),
            udp.payload().to_vec(),
        )),
        _ => None,
    }
}

pub fn echo_reply(frame: &[u8]) -> Option<u16> {
    match SlicedPacket::from_ethernet(frame).ok()?.transport? {
        etherparse::TransportSlice::Icmpv4(icmp) => match icmp.icmp_type() {
            etherparse::Icmpv4Type::EchoReply(echo) => Some(echo.id),
            _ => None,
        },
        _ => None,
    }
}

/// Runs `work` on a thread in the namespace of that name.
pub fn inside<T: Send + 'static>(netns: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let file = File::open(format!("/run/netns/{netns}")).unwrap();
    std::thread::spawn(move || {
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        work()
    })
    .join()
    .unwrap()
}
