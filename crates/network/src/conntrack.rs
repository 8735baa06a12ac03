//! Ending tracked connections, by ctnetlink.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::conntrack::{ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Tuple};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;

use crate::NetworkError;
use crate::netns::{Netns, system_error};

/// How long the kernel may take for one answer, in seconds.
const PATIENCE: i64 = 10;
/// The kernel fills at most 32 KiB of a dump at once.
const BUFFER: usize = 64 * 1024;
/// `CTA_ZONE` and `CTA_ID` of `include/uapi/linux/netfilter/nfnetlink_conntrack.h`.
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;

/// The packets of one direction of a connection, as its sender sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
    /// IP protocol number.
    pub(crate) protocol: u8,
    /// Zero for protocols without ports.
    pub(crate) destination_port: u16,
}

/// A tracked connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Connection {
    pub(crate) original: Flow,
    /// Address translation makes this another than `original` turned round.
    pub(crate) reply: Flow,
}

/// Connections that have one of `addresses` at either end, before or after translation.
pub(crate) fn any_of(addresses: BTreeSet<Ipv4Addr>) -> impl Fn(&Connection) -> bool {
    move |Connection { original, reply }| {
        let ends = [
            original.source,
            original.destination,
            reply.source,
            reply.destination,
        ];
        ends.iter().any(|end| addresses.contains(end))
    }
}

/// Ends all connections of the namespace that `ends` says: their next packet belongs to no connection. Returns how many
/// there were. Takes time in proportion to all tracked connections, about 1 µs for each.
pub(crate) async fn end<F>(netns: &Netns, ends: F) -> Result<usize, NetworkError>
where
    F: Fn(&Connection) -> bool + Send + 'static,
{
    netns.run(move || end_here(ends)).await
}

fn end_here(ends: impl Fn(&Connection) -> bool) -> Result<usize, NetworkError> {
    let mut table = Table::open()?;
    let deletions = table.deletions(ends)?;
    for deletion in &deletions {
        table.delete(deletion)?;
    }
    Ok(deletions.len())
}

/// The connection tracking table of the calling thread's namespace.
struct Table {
    socket: Socket,
    buffer: Vec<u8>,
}

type Message = NetlinkMessage<NetfilterMessage>;

impl Table {
    fn open() -> Result<Self, NetworkError> {
        let failed = |e| system_error("opening a ctnetlink socket", e);
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(failed)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(PATIENCE, 0))
            .map_err(|e| failed(e.into()))?;
        Ok(Self {
            socket,
            buffer: vec![0; BUFFER],
        })
    }

    /// What deletes each connection that `ends` says. Nothing else of the table is kept: it may be large.
    fn deletions(
        &mut self,
        ends: impl Fn(&Connection) -> bool,
    ) -> Result<Vec<Vec<ConntrackAttribute>>, NetworkError> {
        self.send(ConntrackMessage::Get(Vec::new()), NLM_F_DUMP)?;
        let mut deletions = Vec::new();
        self.receive("listing tracked connections", |attributes| {
            if connection(&attributes).is_some_and(|connection| ends(&connection)) {
                deletions.push(attributes.into_iter().filter(identifies).collect());
            }
        })?;
        Ok(deletions)
    }

    fn delete(&mut self, identity: &[ConntrackAttribute]) -> Result<(), NetworkError> {
        self.send(ConntrackMessage::Delete(identity.to_vec()), NLM_F_ACK)?;
        match self.receive("ending a connection", drop) {
            // It has ended by itself.
            Err(NetworkError::System { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            other => other,
        }
    }

    fn send(&self, message: ConntrackMessage, flags: u16) -> Result<(), NetworkError> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let netfilter = NetfilterHeader::new(NetfilterProtoFamily::IPv4, 0, 0);
        let mut message = Message::new(header, NetfilterMessage::new(netfilter, message).into());
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let sent = self.socket.send(&bytes, 0);
        sent.map(drop).map_err(|e| system_error("asking ctnetlink", e))
    }

    /// Hands each connection's attributes to `take`, until the kernel says that this was all.
    fn receive(
        &mut self,
        action: &'static str,
        mut take: impl FnMut(Vec<ConntrackAttribute>),
    ) -> Result<(), NetworkError> {
        loop {
            let mut room = self.buffer.as_mut_slice();
            let length = self
                .socket
                .recv(&mut room, 0)
                .map_err(|e| system_error(action, e))?;
            let mut rest = self.buffer.get(..length).unwrap_or_default();
            while !rest.is_empty() {
                let invalid = |e| system_error(action, std::io::Error::other(e));
                let message = Message::deserialize(rest).map_err(invalid)?;
                // Messages are aligned to 4 bytes.
                let length = (message.header.length as usize).next_multiple_of(4);
                rest = rest.get(length..).unwrap_or_default();
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(error) => {
                        return match error.code {
                            // An acknowledgement.
                            None => Ok(()),
                            Some(_) => Err(system_error(action, error.to_io())),
                        };
                    }
                    NetlinkPayload::InnerMessage(NetfilterMessage {
                        inner: NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)),
                        ..
                    }) => take(attributes),
                    _ => {}
                }
            }
        }
    }
}

/// Tuple, zone and id: the id keeps a new connection with the same tuple from being taken for the old one.
fn identifies(attribute: &ConntrackAttribute) -> bool {
    use netlink_packet_core::Nla as _;
    match attribute {
        ConntrackAttribute::CtaTupleOrig(_) => true,
        ConntrackAttribute::Other(other) => matches!(other.kind(), CTA_ID | CTA_ZONE),
        _ => false,
    }
}

fn connection(attributes: &[ConntrackAttribute]) -> Option<Connection> {
    let (mut original, mut reply) = (None, None);
    for attribute in attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(tuple) => original = flow(tuple),
            ConntrackAttribute::CtaTupleReply(tuple) => reply = flow(tuple),
            _ => {}
        }
    }
    Some(Connection {
        original: original?,
        reply: reply?,
    })
}

fn flow(tuples: &[Tuple]) -> Option<Flow> {
    let (mut source, mut destination, mut protocol, mut destination_port) = (None, None, 0, 0);
    for tuple in tuples {
        match tuple {
            Tuple::Ip(parts) => {
                for part in parts {
                    match part {
                        IPTuple::SourceAddress(IpAddr::V4(address)) => source = Some(*address),
                        IPTuple::DestinationAddress(IpAddr::V4(address)) => destination = Some(*address),
                        _ => {}
                    }
                }
            }
            Tuple::Proto(parts) => {
                for part in parts {
                    match part {
                        ProtoTuple::Protocol(number) => protocol = u8::from(*number),
                        ProtoTuple::DestinationPort(port) => destination_port = *port,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(Flow {
        source: source?,
        destination: destination?,
        protocol,
        destination_port,
    })
}
