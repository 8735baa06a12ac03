//! Frames that no guest's own address, MAC and groups allow: what a hostile guest may write to its NIC.

use std::net::Ipv4Addr;

use super::{Guest, ROUTER_MAC};

pub const ROUTER: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 1);
pub const DNS: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 2);
pub const IMDS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
pub const PUBLIC: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 10);
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
pub const INTERNET: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
const BROADCAST: [u8; 6] = [0xff; 6];
const STRANGER: [u8; 6] = [6, 0, 0, 0, 0, 99];

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;

/// An IPv4 packet, field by field, so that each may lie.
#[derive(Clone)]
pub struct Ip {
    pub from: Ipv4Addr,
    pub to: Ipv4Addr,
    pub protocol: u8,
    pub ttl: u8,
    pub id: u16,
    /// Flags and offset, as on the wire.
    pub fragment: u16,
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
    /// Instead of the right one.
    pub version_and_length: Option<u8>,
    pub total_length: Option<u16>,
    pub checksum: Option<u16>,
}

impl Ip {
    pub fn new(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: Vec<u8>) -> Self {
        Self {
            from,
            to,
            protocol,
            ttl: 64,
            id: 1,
            fragment: 0,
            options: Vec::new(),
            payload,
            version_and_length: None,
            total_length: None,
            checksum: None,
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let header = 20 + self.options.len();
        let length = u16::try_from(header + self.payload.len()).unwrap_or(u16::MAX);
        let mut bytes = vec![self.version_and_length.unwrap_or(0x40 | (header / 4) as u8), 0];
        bytes.extend(self.total_length.unwrap_or(length).to_be_bytes());
        bytes.extend(self.id.to_be_bytes());
        bytes.extend(self.fragment.to_be_bytes());
        bytes.extend([self.ttl, self.protocol, 0, 0]);
        bytes.extend(self.from.octets());
        bytes.extend(self.to.octets());
        bytes.extend(&self.options);
        let checksum = self.checksum.unwrap_or_else(|| checksum(&bytes));
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }
}

fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// With the checksum of the addresses that the packet claims.
fn transport(
    from: Ipv4Addr,
    to: Ipv4Addr,
    protocol: u8,
    mut segment: Vec<u8>,
    checksum_at: usize,
) -> Vec<u8> {
    let mut pseudo = Vec::new();
    pseudo.extend(from.octets());
    pseudo.extend(to.octets());
    pseudo.extend([0, protocol]);
    pseudo.extend((segment.len() as u16).to_be_bytes());
    pseudo.extend(&segment);
    let sum = checksum(&pseudo);
    segment[checksum_at..checksum_at + 2].copy_from_slice(&sum.to_be_bytes());
    segment
}

pub fn tcp_flags(from: Ipv4Addr, to: Ipv4Addr, ports: (u16, u16), flags: u8) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(ports.0.to_be_bytes());
    segment.extend(ports.1.to_be_bytes());
    segment.extend([0, 0, 3, 232, 0, 0, 0, 0, 0x50, flags, 0xfa, 0, 0, 0, 0, 0]);
    transport(from, to, TCP, segment, 16)
}

const SYN: u8 = 2;

pub fn udp(from: Ipv4Addr, to: Ipv4Addr, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(ports.0.to_be_bytes());
    segment.extend(ports.1.to_be_bytes());
    segment.extend((8 + payload.len() as u16).to_be_bytes());
    segment.extend([0, 0]);
    segment.extend(payload);
    transport(from, to, UDP, segment, 6)
}

fn icmp(kind: u8, code: u8, rest: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(rest);
    message.extend(payload);
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

pub fn ethernet(to: [u8; 6], from: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to, &from, kind.to_be_bytes().as_slice(), payload].concat()
}

fn arp(
    ethernet_from: [u8; 6],
    to: [u8; 6],
    operation: u16,
    sender: ([u8; 6], Ipv4Addr),
    target: Ipv4Addr,
) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4];
    packet.extend(operation.to_be_bytes());
    packet.extend(sender.0);
    packet.extend(sender.1.octets());
    packet.extend(if operation == 1 { [0; 6] } else { to });
    packet.extend(target.octets());
    ethernet(to, ethernet_from, 0x0806, &packet)
}

/// A DHCP message with these options.
fn dhcp(op: u8, chaddr: [u8; 6], yiaddr: Ipv4Addr, options: &[u8]) -> Vec<u8> {
    let mut message = vec![op, 1, 6, 0, 1, 2, 3, 4, 0, 0, 0, 0];
    message.extend([0; 4]);
    message.extend(yiaddr.octets());
    message.extend([0; 8]);
    message.extend(chaddr);
    message.extend([0; 202]);
    message.extend([99, 130, 83, 99]);
    message.extend(options);
    message.push(255);
    message
}

/// Each with its name. `one` writes them; `two` is its neighbour, whose group admits TCP port 22 only; `one` has a public
/// address and may send whatever it likes to the internet.
pub fn forged(one: &Guest, two: &Guest) -> Vec<(&'static str, Vec<u8>)> {
    let mut all: Vec<(&'static str, Vec<u8>)> = Vec::new();
    let ip = |packet: &Ip| ethernet(ROUTER_MAC, one.mac, 0x0800, &packet.bytes());
    let syn = |from, to, port| Ip::new(from, to, TCP, tcp_flags(from, to, (6000, port), SYN));
    let datagram = |from, to, ports, payload: &[u8]| Ip::new(from, to, UDP, udp(from, to, ports, payload));
    let unassigned = Ipv4Addr::new(172, 31, 0, 99);

    // Source addresses.
    for (name, from) in [
        ("from an address of the subnet that nobody has", unassigned),
        ("from the neighbour's own address", two.ip),
        ("from the router", ROUTER),
        ("from IMDS", IMDS),
        ("from outside the VPC", INTERNET),
        ("from its own public address", PUBLIC),
        ("from the host's end of the uplink", GATEWAY),
        ("from 127.0.0.1", Ipv4Addr::LOCALHOST),
        ("from 0.0.0.0", Ipv4Addr::UNSPECIFIED),
        ("from 255.255.255.255", Ipv4Addr::BROADCAST),
        ("from a multicast address", Ipv4Addr::new(224, 0, 0, 1)),
        ("from class E", Ipv4Addr::new(240, 0, 0, 1)),
    ] {
        all.push((name, ip(&syn(from, two.ip, 22))));
    }
    all.push((
        "from the neighbour, to the internet",
        ip(&syn(two.ip, INTERNET, 80)),
    ));
    all.push(("from the neighbour, to IMDS", ip(&syn(two.ip, IMDS, 80))));
    all.push((
        "from the neighbour, a question to DNS",
        ip(&datagram(
            two.ip,
            DNS,
            (6000, 53),
            &super::dns::question("example.com."),
        )),
    ));
    all.push((
        "an answer from DNS to the neighbour",
        ip(&datagram(DNS, two.ip, (53, 6000), b"answer")),
    ));

    // MAC addresses.
    let honest = syn(one.ip, two.ip, 22).bytes();
    for (name, to, from) in [
        ("a stranger's MAC", ROUTER_MAC, STRANGER),
        ("the neighbour's MAC", ROUTER_MAC, two.mac),
        ("the router's MAC as the source", ROUTER_MAC, ROUTER_MAC),
        (
            "a multicast MAC as the source",
            ROUTER_MAC,
            [0x01, 0, 0x5e, 0, 0, 1],
        ),
        ("all zeroes as the source", ROUTER_MAC, [0; 6]),
        ("to the neighbour's MAC, past the router", two.mac, one.mac),
        (
            "a unicast packet in a broadcast frame, from a stranger's MAC",
            BROADCAST,
            STRANGER,
        ),
    ] {
        all.push((name, ethernet(to, from, 0x0800, &honest)));
    }
    all.push((
        "the neighbour's MAC and address together",
        ethernet(ROUTER_MAC, two.mac, 0x0800, &syn(two.ip, INTERNET, 80).bytes()),
    ));

    // ARP.
    for (name, ethernet_from, operation, sender) in [
        ("ARP request as the neighbour", one.mac, 1, (one.mac, two.ip)),
        (
            "ARP request with the neighbour's MAC inside",
            one.mac,
            1,
            (two.mac, one.ip),
        ),
        (
            "ARP request with another MAC outside",
            STRANGER,
            1,
            (one.mac, one.ip),
        ),
        ("ARP request as the router", one.mac, 1, (one.mac, ROUTER)),
        ("ARP reply as the neighbour", one.mac, 2, (one.mac, two.ip)),
        ("ARP reply as IMDS", one.mac, 2, (one.mac, IMDS)),
        ("RARP", one.mac, 3, (one.mac, two.ip)),
    ] {
        all.push((name, arp(ethernet_from, BROADCAST, operation, sender, ROUTER)));
    }
    for (name, claimed) in [
        ("gratuitous ARP for the neighbour", two.ip),
        ("gratuitous ARP for the router", ROUTER),
        ("gratuitous ARP for the host", GATEWAY),
    ] {
        all.push((name, arp(one.mac, BROADCAST, 1, (one.mac, claimed), claimed)));
    }
    all.push((
        "ARP reply as the router, to the neighbour's MAC",
        arp(one.mac, two.mac, 2, (one.mac, ROUTER), two.ip),
    ));
    all.push((
        "ARP cut in the middle",
        arp(one.mac, BROADCAST, 1, (one.mac, one.ip), ROUTER)[..30].to_vec(),
    ));

    // IPv6.
    let v6 = |next: u8, to: [u8; 16], payload: &[u8]| {
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend((payload.len() as u16).to_be_bytes());
        packet.extend([next, 255]);
        packet.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0xff, 0xfe, 0, 0, 0x0a]);
        packet.extend(to);
        packet.extend(payload);
        packet
    };
    let nodes = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let neighbour = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0xff, 0xfe, 0, 0, 0x0b];
    for (name, packet) in [
        (
            "IPv6 router advertisement",
            v6(58, nodes, &[134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]),
        ),
        (
            "IPv6 neighbour advertisement",
            v6(58, nodes, &[136, 0, 0, 0, 0x20, 0, 0, 0]),
        ),
        ("IPv6 to the neighbour", v6(17, neighbour, &[0; 8])),
        (
            "IPv6 with a hop-by-hop header",
            v6(0, nodes, &[58, 0, 5, 2, 0, 0, 0, 0, 130, 0, 0, 0, 0, 0, 0, 0]),
        ),
    ] {
        all.push((name, ethernet([0x33, 0x33, 0, 0, 0, 1], one.mac, 0x86dd, &packet)));
    }
    all.push((
        "IPv6 to the router's MAC",
        ethernet(ROUTER_MAC, one.mac, 0x86dd, &v6(17, neighbour, &[0; 8])),
    ));

    // VLANs and other ways to wrap.
    let tagged = |tags: &[u16], inside: &[u8]| {
        let mut payload = Vec::new();
        for (index, tag) in tags.iter().enumerate() {
            payload.extend(tag.to_be_bytes());
            let next: u16 = if index + 1 == tags.len() { 0x0800 } else { 0x8100 };
            payload.extend(next.to_be_bytes());
        }
        payload.extend(inside);
        payload
    };
    let spoofed = syn(two.ip, INTERNET, 80).bytes();
    all.push((
        "VLAN 5",
        ethernet(ROUTER_MAC, one.mac, 0x8100, &tagged(&[5], &honest)),
    ));
    all.push((
        "VLAN 0 with another's address",
        ethernet(ROUTER_MAC, one.mac, 0x8100, &tagged(&[0], &spoofed)),
    ));
    all.push((
        "two VLAN tags",
        ethernet(ROUTER_MAC, one.mac, 0x88a8, &tagged(&[5, 6], &honest)),
    ));
    all.push((
        "VLAN 0 within VLAN 0, with another's address",
        ethernet(ROUTER_MAC, one.mac, 0x88a8, &tagged(&[0, 0], &spoofed)),
    ));
    all.push((
        "MPLS",
        ethernet(
            ROUTER_MAC,
            one.mac,
            0x8847,
            &[&[0, 0, 0x11, 64], honest.as_slice()].concat(),
        ),
    ));
    all.push((
        "PPPoE",
        ethernet(
            ROUTER_MAC,
            one.mac,
            0x8864,
            &[&[0x11, 0, 0, 1, 0, 42, 0, 0x21], honest.as_slice()].concat(),
        ),
    ));
    all.push((
        "LLC and SNAP",
        ethernet(
            ROUTER_MAC,
            one.mac,
            48,
            &[&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0], honest.as_slice()].concat(),
        ),
    ));
    all.push((
        "spanning tree",
        ethernet([0x01, 0x80, 0xc2, 0, 0, 0], one.mac, 38, &[0x42; 38]),
    ));
    all.push((
        "LLDP",
        ethernet(
            [0x01, 0x80, 0xc2, 0, 0, 0x0e],
            one.mac,
            0x88cc,
            &[2, 7, 4, 6, 0, 0, 0, 0, 10, 0, 0],
        ),
    ));
    all.push((
        "EAPOL",
        ethernet([0x01, 0x80, 0xc2, 0, 0, 3], one.mac, 0x888e, &[1, 1, 0, 0]),
    ));
    all.push((
        "wake-on-LAN",
        ethernet(
            BROADCAST,
            one.mac,
            0x0842,
            &[&[0xff; 6], two.mac.repeat(16).as_slice()].concat(),
        ),
    ));
    let inner = syn(INTERNET, two.ip, 22).bytes();
    for (name, protocol) in [("IP in IP", 4), ("IPv6 in IP", 41), ("ESP", 50), ("SCTP", 132)] {
        all.push((name, ip(&Ip::new(one.ip, two.ip, protocol, inner.clone()))));
    }
    all.push((
        "GRE",
        ip(&Ip::new(
            one.ip,
            two.ip,
            47,
            [&[0, 0, 8, 0], inner.as_slice()].concat(),
        )),
    ));
    all.push((
        "VXLAN",
        ip(&datagram(
            one.ip,
            two.ip,
            (6000, 4789),
            &[&[8, 0, 0, 0, 0, 0, 1, 0], honest.as_slice()].concat(),
        )),
    ));

    // Fragments.
    let fragment = |port: u16, range: std::ops::Range<usize>, more: bool, id: u16| {
        let whole = syn(one.ip, two.ip, port).payload;
        let mut packet = Ip::new(one.ip, two.ip, TCP, whole[range.clone()].to_vec());
        packet.id = id;
        packet.fragment = (range.start / 8) as u16 | if more { 0x2000 } else { 0 };
        packet
    };
    all.push((
        "the first fragment alone, ports only",
        ip(&fragment(23, 0..8, true, 101)),
    ));
    all.push((
        "its rest, to a port that is closed",
        ip(&fragment(23, 8..20, false, 101)),
    ));
    all.push((
        "the first fragment to port 22",
        ip(&fragment(22, 0..8, true, 102)),
    ));
    all.push((
        "an overlapping one that changes the port to 23",
        ip(&fragment(23, 0..16, true, 102)),
    ));
    all.push((
        "the last fragment after an overlap",
        ip(&fragment(22, 16..20, false, 102)),
    ));
    all.push((
        "a last fragment without a first",
        ip(&fragment(22, 8..20, false, 103)),
    ));
    let mut of_another = fragment(22, 0..16, true, 104);
    of_another.from = two.ip;
    all.push(("a fragment of the neighbour's", ip(&of_another)));
    let mut beyond = Ip::new(one.ip, two.ip, ICMP, vec![0; 64]);
    beyond.fragment = 0x1fff;
    all.push(("a fragment that ends beyond 65,535", ip(&beyond)));

    // Options.
    let with_options = |options: &[u8]| {
        let mut packet = syn(one.ip, two.ip, 22);
        packet.options = options.to_vec();
        packet
    };
    let hop = two.ip.octets();
    let route = |kind: u8| [kind, 7, 4, hop[0], hop[1], hop[2], hop[3], 0];
    all.push(("loose source route", ip(&with_options(&route(131)))));
    all.push(("strict source route", ip(&with_options(&route(137)))));
    let mut through = syn(one.ip, ROUTER, 22);
    through.options = route(131).to_vec();
    all.push(("loose source route by way of the router", ip(&through)));
    all.push((
        "an option longer than the header",
        ip(&with_options(&[7, 40, 4, 0])),
    ));
    all.push(("an option of length 0", ip(&with_options(&[7, 0, 0, 0]))));

    // Destinations.
    for (name, mac, to) in [
        ("to 127.0.0.1", ROUTER_MAC, Ipv4Addr::LOCALHOST),
        ("to 127.5.5.5", ROUTER_MAC, Ipv4Addr::new(127, 5, 5, 5)),
        ("to 0.0.0.0", ROUTER_MAC, Ipv4Addr::UNSPECIFIED),
        ("to 0.1.2.3", ROUTER_MAC, Ipv4Addr::new(0, 1, 2, 3)),
        (
            "to 169.254.0.2, the uplink's next hop",
            ROUTER_MAC,
            Ipv4Addr::new(169, 254, 0, 2),
        ),
        (
            "to 169.254.169.123",
            ROUTER_MAC,
            Ipv4Addr::new(169, 254, 169, 123),
        ),
        ("to 255.255.255.255", BROADCAST, Ipv4Addr::BROADCAST),
        (
            "to 255.255.255.255 by the router's MAC",
            ROUTER_MAC,
            Ipv4Addr::BROADCAST,
        ),
        (
            "to the subnet's broadcast address",
            BROADCAST,
            Ipv4Addr::new(172, 31, 15, 255),
        ),
        (
            "to the VPC's broadcast address",
            BROADCAST,
            Ipv4Addr::new(172, 31, 255, 255),
        ),
        (
            "to all hosts",
            [0x01, 0, 0x5e, 0, 0, 1],
            Ipv4Addr::new(224, 0, 0, 1),
        ),
        (
            "to mDNS",
            [0x01, 0, 0x5e, 0, 0, 251],
            Ipv4Addr::new(224, 0, 0, 251),
        ),
        (
            "to a multicast group beyond the link",
            [0x01, 0, 0x5e, 1, 1, 1],
            Ipv4Addr::new(239, 1, 1, 1),
        ),
    ] {
        let packet = datagram(one.ip, to, (6000, 5353), b"hello");
        all.push((name, ethernet(mac, one.mac, 0x0800, &packet.bytes())));
    }
    all.push((
        "IGMP",
        ethernet(
            [0x01, 0, 0x5e, 0, 0, 22],
            one.mac,
            0x0800,
            &Ip::new(
                one.ip,
                Ipv4Addr::new(224, 0, 0, 22),
                2,
                vec![0x16, 0, 0xfa, 4, 239, 1, 1, 1],
            )
            .bytes(),
        ),
    ));
    for (name, to, port) in [
        ("IMDS at port 22", IMDS, 22),
        ("IMDS at port 443", IMDS, 443),
        ("DNS at port 22", DNS, 22),
        ("the router at port 80", ROUTER, 80),
        ("the neighbour at port 23", two.ip, 23),
    ] {
        all.push((name, ip(&syn(one.ip, to, port))));
    }
    for (name, flags) in [
        ("a SYN and FIN to a closed port", 3),
        ("a RST to nothing", 4),
        ("no flags at all", 0),
        ("all flags", 0x3f),
    ] {
        all.push((
            name,
            ip(&Ip::new(
                one.ip,
                two.ip,
                TCP,
                tcp_flags(one.ip, two.ip, (6001, 22), flags),
            )),
        ));
    }

    // DHCP.
    let server = [53, 1, 5, 54, 4, 172, 31, 0, 1];
    let ack = dhcp(2, two.mac, unassigned, &server);
    all.push((
        "DHCP answer to the neighbour",
        ip(&datagram(one.ip, two.ip, (67, 68), &ack)),
    ));
    all.push((
        "DHCP answer to everybody",
        ethernet(
            BROADCAST,
            one.mac,
            0x0800,
            &datagram(one.ip, Ipv4Addr::BROADCAST, (67, 68), &ack).bytes(),
        ),
    ));
    all.push((
        "DHCP answer as the router",
        ethernet(
            BROADCAST,
            one.mac,
            0x0800,
            &datagram(ROUTER, Ipv4Addr::BROADCAST, (67, 68), &ack).bytes(),
        ),
    ));
    let discover = dhcp(1, two.mac, Ipv4Addr::UNSPECIFIED, &[53, 1, 1]);
    let unnumbered = |payload: &[u8], to| datagram(Ipv4Addr::UNSPECIFIED, to, (68, 67), payload).bytes();
    all.push((
        "DHCP question for the neighbour's lease",
        ethernet(
            BROADCAST,
            one.mac,
            0x0800,
            &unnumbered(&discover, Ipv4Addr::BROADCAST),
        ),
    ));
    all.push((
        "DHCP question with the neighbour's MAC",
        ethernet(
            BROADCAST,
            two.mac,
            0x0800,
            &unnumbered(&discover, Ipv4Addr::BROADCAST),
        ),
    ));
    let own = dhcp(1, one.mac, Ipv4Addr::UNSPECIFIED, &[53, 1, 1]);
    all.push((
        "DHCP from 0.0.0.0 to the neighbour",
        ip(&Ip {
            payload: udp(Ipv4Addr::UNSPECIFIED, two.ip, (68, 67), &own),
            ..Ip::new(Ipv4Addr::UNSPECIFIED, two.ip, UDP, Vec::new())
        }),
    ));
    all.push((
        "DHCP from 0.0.0.0 to the internet",
        ip(&Ip {
            payload: udp(Ipv4Addr::UNSPECIFIED, INTERNET, (68, 67), &own),
            ..Ip::new(Ipv4Addr::UNSPECIFIED, INTERNET, UDP, Vec::new())
        }),
    ));

    // ICMP.
    let about = syn(two.ip, one.ip, 22).bytes()[..28].to_vec();
    for (name, from, kind, code) in [
        ("ICMP redirect", one.ip, 5, 1),
        ("ICMP redirect as the router", ROUTER, 5, 1),
        ("ICMP port unreachable about nothing", one.ip, 3, 3),
        ("ICMP fragmentation needed about nothing", one.ip, 3, 4),
        ("ICMP time exceeded about nothing", one.ip, 11, 0),
        ("ICMP source quench", one.ip, 4, 0),
        ("ICMP router advertisement", one.ip, 9, 0),
        ("ICMP timestamp request", one.ip, 13, 0),
        ("ICMP echo reply that nobody asked for", one.ip, 0, 0),
        (
            "ICMP echo request to the neighbour, whose group has no ICMP",
            one.ip,
            8,
            0,
        ),
    ] {
        all.push((
            name,
            ip(&Ip::new(
                from,
                two.ip,
                ICMP,
                icmp(kind, code, GATEWAY.octets(), &about),
            )),
        ));
    }
    for (name, kind) in [
        ("ICMP redirect to the router", 5),
        ("ICMP timestamp request to the router", 13),
        ("ICMP address mask request to the router", 17),
    ] {
        all.push((
            name,
            ip(&Ip::new(one.ip, ROUTER, ICMP, icmp(kind, 1, [0; 4], &about))),
        ));
    }
    all.push((
        "echo request to a broadcast address",
        ethernet(
            BROADCAST,
            one.mac,
            0x0800,
            &Ip::new(
                one.ip,
                Ipv4Addr::new(172, 31, 15, 255),
                ICMP,
                icmp(8, 0, [0; 4], b""),
            )
            .bytes(),
        ),
    ));

    // Headers that lie about their length, and what is too short or too long.
    let lie = |change: fn(&mut Ip)| {
        let mut packet = syn(one.ip, two.ip, 22);
        change(&mut packet);
        packet
    };
    all.push(("IP version 5", ip(&lie(|p| p.version_and_length = Some(0x55)))));
    all.push((
        "an IP header of 16 bytes",
        ip(&lie(|p| p.version_and_length = Some(0x44))),
    ));
    all.push((
        "an IP header longer than the packet",
        ip(&lie(|p| p.version_and_length = Some(0x4f))),
    ));
    all.push((
        "a total length beyond the frame",
        ip(&lie(|p| p.total_length = Some(1400))),
    ));
    all.push((
        "a total length below the header",
        ip(&lie(|p| p.total_length = Some(12))),
    ));
    all.push(("a wrong IP checksum", ip(&lie(|p| p.checksum = Some(0x1234)))));
    all.push(("TCP cut after its ports", ip(&lie(|p| p.payload.truncate(4)))));
    all.push((
        "a TCP header longer than the packet",
        ip(&lie(|p| p.payload[12] = 0xf0)),
    ));
    all.push((
        "UDP that says it is longer",
        ip(&lie(|p| {
            p.protocol = UDP;
            p.payload = vec![0x17, 0x70, 0, 22, 5, 0, 0, 0];
        })),
    ));
    all.push((
        "an Ethernet header and nothing else",
        ethernet(ROUTER_MAC, one.mac, 0x0800, &[]),
    ));
    all.push((
        "half an IP header",
        ethernet(ROUTER_MAC, one.mac, 0x0800, &honest[..10]),
    ));
    all.push(("13 bytes", honest[..13].to_vec()));
    all.push(("one byte", vec![0]));
    let big = vec![0x42; 60_000];
    all.push((
        "60,000 bytes of another's",
        ip(&datagram(two.ip, INTERNET, (6000, 80), &big[..8000])),
    ));
    all.push((
        "60,000 bytes of no protocol",
        ethernet(ROUTER_MAC, one.mac, 0x9999, &big),
    ));
    all.push((
        "9,000 bytes to a closed port",
        ip(&datagram(one.ip, two.ip, (6000, 23), &big[..9000])),
    ));
    all.push(("TTL 0", ip(&lie(|p| p.ttl = 0))));
    all
}
