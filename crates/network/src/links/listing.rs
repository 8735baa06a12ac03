//! What the kernel has in a namespace: links, IPv4 addresses, routes and neighbours.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use futures::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourState};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType};
use rtnetlink::RouteMessageBuilder;

use super::{Links, failed, is_errno};
use crate::NetworkError;

/// A link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkState {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) up: bool,
    pub(crate) mac: Option<[u8; 6]>,
    pub(crate) mtu: u32,
}

/// An IPv4 route of the main table that delivers packets, or ends them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Route {
    pub(crate) to: Ipv4Addr,
    pub(crate) prefix: u8,
    /// The link's index; `None`: unreachable.
    pub(crate) by: Option<u32>,
    pub(crate) next_hop: Option<Ipv4Addr>,
}

/// An address that is bound to a MAC for good.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Neighbour {
    pub(crate) index: u32,
    pub(crate) address: Ipv4Addr,
    pub(crate) mac: [u8; 6],
}

impl Links {
    /// Every link.
    pub(crate) async fn states(&self) -> Result<Vec<LinkState>, NetworkError> {
        let links: Vec<LinkMessage> = self
            .0
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(failed("listing links"))?;
        Ok(links.into_iter().filter_map(link).collect())
    }

    /// One link; `None`: it is gone.
    pub(crate) async fn state(&self, index: u32) -> Result<Option<LinkState>, NetworkError> {
        match self.0.link().get().match_index(index).execute().try_next().await {
            Ok(found) => Ok(found.and_then(link)),
            Err(e) if is_errno(&e, libc::ENODEV) => Ok(None),
            Err(e) => Err(failed(format!("looking for link {index}"))(e)),
        }
    }

    /// The IPv4 addresses of each link, but for loopback's own.
    pub(crate) async fn addresses(&self) -> Result<BTreeMap<u32, BTreeSet<Ipv4Addr>>, NetworkError> {
        let all: Vec<_> = self
            .0
            .address()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(failed("listing addresses"))?;
        let mut addresses: BTreeMap<u32, BTreeSet<Ipv4Addr>> = BTreeMap::new();
        for message in all {
            for attribute in message.attributes {
                if let AddressAttribute::Local(IpAddr::V4(address)) = attribute
                    && !address.is_loopback()
                {
                    addresses.entry(message.header.index).or_default().insert(address);
                }
            }
        }
        Ok(addresses)
    }

    /// The routes of all tables.
    pub(super) async fn route_messages(&self) -> Result<Vec<RouteMessage>, NetworkError> {
        let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let routes = self.0.route().get(all).execute().try_collect().await;
        routes.map_err(failed("listing routes"))
    }

    /// The routes of the main table.
    pub(crate) async fn routes(&self) -> Result<BTreeSet<Route>, NetworkError> {
        Ok(self
            .route_messages()
            .await?
            .into_iter()
            .filter_map(route)
            .collect())
    }

    /// The permanent neighbours.
    pub(crate) async fn neighbours(&self) -> Result<BTreeSet<Neighbour>, NetworkError> {
        let all: Vec<_> = self
            .0
            .neighbours()
            .get()
            .set_address_family(AddressFamily::Inet)
            .execute()
            .try_collect()
            .await
            .map_err(failed("listing neighbours"))?;
        let permanent = all
            .into_iter()
            .filter(|message| message.header.state == NeighbourState::Permanent);
        let neighbours = permanent.filter_map(|message| {
            let (mut address, mut mac) = (None, None);
            for attribute in message.attributes {
                match attribute {
                    NeighbourAttribute::Destination(NeighbourAddress::Inet(to)) => address = Some(to),
                    NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.try_into().ok(),
                    _ => {}
                }
            }
            Some(Neighbour {
                index: message.header.ifindex,
                address: address?,
                mac: mac?,
            })
        });
        Ok(neighbours.collect())
    }
}

fn link(message: LinkMessage) -> Option<LinkState> {
    let (mut name, mut mac, mut mtu) = (None, None, 0);
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(is) => name = Some(is),
            LinkAttribute::Address(bytes) => mac = bytes.try_into().ok(),
            LinkAttribute::Mtu(bytes) => mtu = bytes,
            _ => {}
        }
    }
    Some(LinkState {
        index: message.header.index,
        name: name?,
        up: message.header.flags.contains(LinkFlags::Up),
        mac,
        mtu,
    })
}

fn route(message: RouteMessage) -> Option<Route> {
    if message.header.table != RouteHeader::RT_TABLE_MAIN {
        return None;
    }
    let (mut to, mut by, mut next_hop) = (Ipv4Addr::UNSPECIFIED, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => to = *address,
            RouteAttribute::Oif(index) => by = Some(*index),
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => next_hop = Some(*address),
            _ => {}
        }
    }
    let by = match message.header.kind {
        RouteType::Unicast => Some(by?),
        RouteType::Unreachable => None,
        _ => return None,
    };
    Some(Route {
        to,
        prefix: message.header.destination_prefix_length,
        by,
        next_hop,
    })
}
