#![allow(clippy::unwrap_used)]

use std::net::Ipv4Addr;

use dhcproto::v4::{DhcpOption, Flags, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable, Encodable};
use proptest::prelude::*;

use super::Lease;
use super::answer::answer;

const ROUTER: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 1);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 10);
const OTHER: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 11);

fn lease() -> Lease {
    Lease {
        mac: [6, 0, 0, 0, 0, 10],
        address: ADDRESS,
        subnet: "172.31.0.0/20".parse().unwrap(),
        router: ROUTER,
        dns: Ipv4Addr::new(172, 31, 0, 2),
        hostname: "ip-172-31-0-10".into(),
        domain: "ec2.internal".into(),
        mtu: 1500,
    }
}

fn request(kind: MessageType) -> Message {
    let mut message = Message::default();
    message.set_chaddr(&lease().mac).set_xid(42);
    message.opts_mut().insert(DhcpOption::MessageType(kind));
    message
}

fn answered(message: &Message) -> Option<(Message, Ipv4Addr)> {
    let answer = answer(&lease(), &message.to_vec().unwrap())?;
    assert!(answer.packet.len() >= 300);
    Some((Message::from_bytes(&answer.packet).unwrap(), answer.to))
}

fn kind(message: &Message) -> MessageType {
    message.opts().msg_type().unwrap()
}

#[test]
fn the_four_ways_to_ask() {
    let (offer, to) = answered(&request(MessageType::Discover)).unwrap();
    assert_eq!(
        (kind(&offer), offer.yiaddr(), offer.xid(), to),
        (MessageType::Offer, ADDRESS, 42, ADDRESS)
    );

    // INIT-REBOOT: what it had before.
    let mut reboot = request(MessageType::Request);
    reboot.opts_mut().insert(DhcpOption::RequestedIpAddress(ADDRESS));
    assert_eq!(kind(&answered(&reboot).unwrap().0), MessageType::Ack);
    reboot.opts_mut().insert(DhcpOption::RequestedIpAddress(OTHER));
    let (nak, to) = answered(&reboot).unwrap();
    assert_eq!(
        (kind(&nak), nak.yiaddr(), to),
        (MessageType::Nak, Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST)
    );

    // RENEWING.
    let mut renewal = request(MessageType::Request);
    renewal.set_ciaddr(ADDRESS);
    let (ack, to) = answered(&renewal).unwrap();
    assert_eq!((kind(&ack), to), (MessageType::Ack, ADDRESS));
    assert!(ack.opts().get(OptionCode::AddressLeaseTime).is_some());

    // INFORM: no address, no lease.
    let mut inform = request(MessageType::Inform);
    inform.set_ciaddr(ADDRESS);
    let (ack, _) = answered(&inform).unwrap();
    assert_eq!(
        (kind(&ack), ack.yiaddr()),
        (MessageType::Ack, Ipv4Addr::UNSPECIFIED)
    );
    assert!(ack.opts().get(OptionCode::AddressLeaseTime).is_none());
}

#[test]
fn what_gets_no_answer() {
    for kind in [MessageType::Release, MessageType::Decline, MessageType::Offer] {
        assert!(answered(&request(kind)).is_none());
    }
    let mut elsewhere = request(MessageType::Request);
    elsewhere.opts_mut().insert(DhcpOption::ServerIdentifier(OTHER));
    assert!(answered(&elsewhere).is_none(), "it chose another server");
    let mut another = request(MessageType::Discover);
    another.set_chaddr(&[6, 0, 0, 0, 0, 11]);
    assert!(answered(&another).is_none(), "another's MAC");
    let mut relayed = request(MessageType::Discover);
    relayed.set_giaddr(OTHER);
    assert!(answered(&relayed).is_none());
    let mut reply = request(MessageType::Discover);
    reply.set_opcode(Opcode::BootReply);
    assert!(answered(&reply).is_none());
}

#[test]
fn the_broadcast_flag_is_heeded() {
    let mut discover = request(MessageType::Discover);
    discover.set_flags(Flags::default().set_broadcast());
    assert_eq!(answered(&discover).unwrap().1, Ipv4Addr::BROADCAST);
}

proptest! {
    #[test]
    fn any_packet_is_survived(packet in proptest::collection::vec(any::<u8>(), 0..600)) {
        answer(&lease(), &packet);
    }

    #[test]
    fn any_damage_is_survived(position in 0usize..300, byte: u8, length in 0usize..300) {
        let mut request = request(MessageType::Request);
        request.opts_mut().insert(DhcpOption::RequestedIpAddress(ADDRESS));
        let mut packet = request.to_vec().unwrap();
        packet.resize(300, 0);
        packet[position] = byte;
        packet.truncate(length);
        if let Some(answer) = answer(&lease(), &packet) {
            prop_assert!(answer.to == ADDRESS || answer.to.is_broadcast());
        }
    }
}
