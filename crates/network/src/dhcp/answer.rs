//! What to say to a DHCP message: a pure function.

use std::net::Ipv4Addr;

use dhcproto::Encodable;
use dhcproto::v4::{DhcpOption, Message, MessageType, Opcode};

use super::request::Request;
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
    let request = Request::parse(packet).filter(|request| request.mac == lease.mac)?;
    let kind = match request.kind {
        MessageType::Discover => MessageType::Offer,
        MessageType::Request => judge(lease, &request)?,
        MessageType::Inform => MessageType::Ack,
        MessageType::Decline => {
            tracing::warn!(address = %lease.address, "the guest says that its address is in use by another");
            return None;
        }
        _ => return None,
    };
    let to = destination(lease, &request, kind)?;
    Some(Answer {
        packet: encode(lease, &request, kind)?,
        to,
    })
}

/// RFC 2131, 4.3.2: whether a REQUEST chooses this server, and asks for what is the client's own.
fn judge(lease: &Lease, request: &Request) -> Option<MessageType> {
    if request.server.is_some_and(|server| server != lease.router) {
        return None;
    }
    let asked = request.requested.unwrap_or(request.ciaddr);
    Some(if asked == lease.address {
        MessageType::Ack
    } else {
        MessageType::Nak
    })
}

/// RFC 2131, 4.1. `None` for a client that claims an address that is not its own.
fn destination(lease: &Lease, request: &Request, kind: MessageType) -> Option<Ipv4Addr> {
    let unnumbered = request.ciaddr.is_unspecified();
    if kind == MessageType::Nak || (unnumbered && request.flags.broadcast()) {
        return Some(Ipv4Addr::BROADCAST);
    }
    (unnumbered || request.ciaddr == lease.address).then_some(lease.address)
}

fn encode(lease: &Lease, request: &Request, kind: MessageType) -> Option<Vec<u8>> {
    let refused = kind == MessageType::Nak;
    // Its address came from elsewhere, and so did its lease.
    let informs = request.kind == MessageType::Inform;
    let mut reply = Message::new_with_id(
        request.xid,
        if refused {
            Ipv4Addr::UNSPECIFIED
        } else {
            request.ciaddr
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
    reply.set_opcode(Opcode::BootReply).set_flags(request.flags);
    let options = reply.opts_mut();
    options.insert(DhcpOption::MessageType(kind));
    options.insert(DhcpOption::ServerIdentifier(lease.router));
    if !refused && !informs {
        options.insert(DhcpOption::AddressLeaseTime(LEASE_SECONDS));
        options.insert(DhcpOption::Renewal(LEASE_SECONDS / 2));
        options.insert(DhcpOption::Rebinding(LEASE_SECONDS / 8 * 7));
    }
    if !refused {
        options.insert(DhcpOption::SubnetMask(lease.subnet.netmask()));
        options.insert(DhcpOption::Router(vec![lease.router]));
        options.insert(DhcpOption::DomainNameServer(vec![lease.dns]));
        options.insert(DhcpOption::Hostname(lease.hostname.clone()));
        // An option has one byte at least (RFC 2132, 3.17).
        if !lease.domain.is_empty() {
            options.insert(DhcpOption::DomainName(lease.domain.clone()));
        }
        options.insert(DhcpOption::InterfaceMtu(lease.mtu));
    }
    let mut packet = reply.to_vec().ok()?;
    if packet.len() < BOOTP_MIN_LEN {
        packet.resize(BOOTP_MIN_LEN, 0);
    }
    Some(packet)
}
