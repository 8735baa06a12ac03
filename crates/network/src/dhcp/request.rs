//! Reading a guest's DHCP message.
//!
//! Only the three options that an answer depends on are looked into. `dhcproto`'s full decoder asserts the lengths of
//! some others, which a guest chooses; its borrowed view does not.

use std::net::Ipv4Addr;

use dhcproto::v4::borrowed::Message;
use dhcproto::v4::{Flags, HType, MessageType, Opcode, OptionCode};

/// A well-formed message from the Ethernet address `mac`, not relayed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) kind: MessageType,
    pub(super) mac: [u8; 6],
    pub(super) xid: u32,
    pub(super) flags: Flags,
    pub(super) ciaddr: Ipv4Addr,
    /// Option 50.
    pub(super) requested: Option<Ipv4Addr>,
    /// Option 54.
    pub(super) server: Option<Ipv4Addr>,
}

impl Request {
    pub(super) fn parse(packet: &[u8]) -> Option<Self> {
        let message = Message::new(packet).ok()?;
        let direct = message.opcode() == Opcode::BootRequest
            && message.htype() == HType::Eth
            && message.hlen() == 6
            && message.giaddr().is_unspecified();
        if !direct {
            return None;
        }
        let (mut kind, mut requested, mut server) = (None, None, None);
        for option in message.opts() {
            match option.code() {
                OptionCode::MessageType => kind = <[u8; 1]>::try_from(option.data()).ok(),
                OptionCode::RequestedIpAddress => requested = address(option.data()),
                OptionCode::ServerIdentifier => server = address(option.data()),
                _ => {}
            }
        }
        let [kind] = kind?;
        Some(Self {
            kind: MessageType::from(kind),
            mac: message.chaddr().try_into().ok()?,
            xid: message.xid(),
            flags: message.flags(),
            ciaddr: message.ciaddr(),
            requested,
            server,
        })
    }
}

fn address(data: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(data).ok().map(Ipv4Addr::from)
}
