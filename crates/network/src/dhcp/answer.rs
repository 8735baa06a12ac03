//! What to say to a DHCP message: a pure function.

use std::net::Ipv4Addr;

use dhcproto::v4::{DhcpOption, HType, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable, Decoder, Encodable};

use super::{LEASE_SECONDS, Lease};

/// The shortest packet that BOOTP clients accept (RFC 1542, 2.1), in bytes.
const BOOTP_MIN_LEN: usize = 300;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) packet: Vec<u8>,
    /// The broadcast address, or the client's.
    pub(super) to: Ipv4Addr,
}

/// `None` for what needs no answer: malformed, another's, relayed, releases.
pub(super) fn answer(lease: &Lease, packet: &[u8]) -> Option<Answer> {
    let request = Message::decode(&mut Decoder::new(packet)).ok()?;
    let for_us = request.opcode() == Opcode::BootRequest
        && request.htype() == HType::Eth
        && request.hlen() == 6
        && request.chaddr() == lease.mac
        && request.giaddr().is_unspecified();
    if !for_us {
        return None;
    }
    let kind = match request.opts().msg_type()? {
        MessageType::Discover => MessageType::Offer,
        MessageType::Request => judge(lease, &request)?,
        MessageType::Inform => MessageType::Ack,
        MessageType::Decline => {
            tracing::warn!(address = %lease.address, "the guest says that its address is in use by another");
            return None;
        }
        _ => return None,
    };
    reply(lease, &request, kind)
}

/// RFC 2131, 4.3.2: which of the client's states a REQUEST comes from, and whether it asks for what is its own.
fn judge(lease: &Lease, request: &Message) -> Option<MessageType> {
    if let Some(DhcpOption::ServerIdentifier(server)) = request.opts().get(OptionCode::ServerIdentifier)
        && *server != lease.router
    {
        return None;
    }
    let asked = match request.opts().get(OptionCode::RequestedIpAddress) {
        Some(DhcpOption::RequestedIpAddress(address)) => *address,
        _ => request.ciaddr(),
    };
    Some(if asked == lease.address {
        MessageType::Ack
    } else {
        MessageType::Nak
    })
}

fn reply(lease: &Lease, request: &Message, kind: MessageType) -> Option<Answer> {
    let refused = kind == MessageType::Nak;
    let informs = request.opts().msg_type() == Some(MessageType::Inform);
    let mut reply = Message::new_with_id(
        request.xid(),
        if refused {
            Ipv4Addr::UNSPECIFIED
        } else {
            request.ciaddr()
        },
        if refused || informs {
            Ipv4Addr::UNSPECIFIED
        } else {
            lease.address
        },
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::UNSPECIFIED,
        &lease.mac,
    );
    reply.set_opcode(Opcode::BootReply).set_flags(request.flags());
    let options = reply.opts_mut();
    options.insert(DhcpOption::MessageType(kind));
    options.insert(DhcpOption::ServerIdentifier(lease.router));
    if !refused {
        if !informs {
            options.insert(DhcpOption::AddressLeaseTime(LEASE_SECONDS));
            options.insert(DhcpOption::Renewal(LEASE_SECONDS / 2));
            options.insert(DhcpOption::Rebinding(LEASE_SECONDS / 8 * 7));
        }
        options.insert(DhcpOption::SubnetMask(lease.subnet.netmask()));
        options.insert(DhcpOption::Router(vec![lease.router]));
        options.insert(DhcpOption::DomainNameServer(vec![lease.dns]));
        options.insert(DhcpOption::Hostname(lease.hostname.clone()));
        options.insert(DhcpOption::DomainName(lease.domain.clone()));
        options.insert(DhcpOption::InterfaceMtu(lease.mtu));
    }
    let mut packet = reply.to_vec().ok()?;
    if packet.len() < BOOTP_MIN_LEN {
        packet.resize(BOOTP_MIN_LEN, 0);
    }
    Some(Answer {
        packet,
        to: destination(lease, request, refused)?,
    })
}

/// RFC 2131, 4.1. `None` for a client that claims an address that is not its own.
fn destination(lease: &Lease, request: &Message, refused: bool) -> Option<Ipv4Addr> {
    if refused || (request.ciaddr().is_unspecified() && request.flags().broadcast()) {
        return Some(Ipv4Addr::BROADCAST);
    }
    if request.ciaddr().is_unspecified() || request.ciaddr() == lease.address {
        return Some(lease.address);
    }
    None
}
