//! What a guest may send to port 67.

use std::net::Ipv4Addr;

use dhcproto::Decodable as _;
use dhcproto::v4::{DhcpOption, Message, Opcode, OptionCode};

use super::Lease;
use super::answer::answer;

/// A packet of the guest's interface up to its options: op, htype, hlen; chaddr; the magic cookie.
const HEADER: usize = 240;
const CHADDR: usize = 28;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// An answer that is not cut to pieces on its way.
const MOST: usize = 1024;

/// As a whole packet, and as the fields and options of one that is well-formed before them.
pub(crate) fn request(input: &[u8]) {
    let lease = lease();
    check(&lease, input);
    let (fields, options) = input.split_at(input.len().min(CHADDR));
    let mut packet = vec![0; HEADER];
    packet[..fields.len()].copy_from_slice(fields);
    packet[..3].copy_from_slice(&[1, 1, 6]);
    packet[CHADDR..CHADDR + 6].copy_from_slice(&lease.mac);
    packet[HEADER - 4..].copy_from_slice(&COOKIE);
    packet.extend_from_slice(options);
    check(&lease, &packet);
}

/// Whatever was asked, nobody is told anything but this lease, and nobody else is sent anything.
fn check(lease: &Lease, packet: &[u8]) {
    let Some(answer) = answer(lease, packet) else {
        return;
    };
    assert!((300..MOST).contains(&answer.packet.len()));
    assert!(answer.to == lease.address || answer.to.is_broadcast());
    let message = Message::from_bytes(&answer.packet).unwrap();
    assert_eq!(message.opcode(), Opcode::BootReply);
    assert_eq!(message.chaddr(), lease.mac);
    assert_eq!(message.xid().to_be_bytes(), packet[4..8]);
    assert!([Ipv4Addr::UNSPECIFIED, lease.address].contains(&message.yiaddr()));
    assert_eq!(
        message.opts().get(OptionCode::ServerIdentifier),
        Some(&DhcpOption::ServerIdentifier(lease.router))
    );
}

fn lease() -> Lease {
    Lease {
        mac: [6, 0, 0, 0, 0, 10],
        address: Ipv4Addr::new(172, 31, 0, 10),
        subnet: "172.31.0.0/20".parse().unwrap(),
        router: Ipv4Addr::new(172, 31, 0, 1),
        dns: Ipv4Addr::new(172, 31, 0, 2),
        hostname: "ip-172-31-0-10".into(),
        domain: "ec2.internal".into(),
        mtu: 1500,
    }
}
