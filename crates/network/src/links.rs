//! Links, addresses, routes and neighbours of one namespace, by rtnetlink.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;

use futures::TryStreamExt;
use ipnet::Ipv4Net;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteScope, RouteType};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

mod listing;

pub(crate) use listing::{LinkState, Neighbour, Route};

use crate::NetworkError;
use crate::names::UPLINK;
use crate::netns::{Netns, system_error};

/// The outer end of every uplink. Uplinks join two points, so the same two addresses serve all of them.
pub(crate) const OUTER_MAC: [u8; 6] = [0x02, 0x68, 0x76, 0, 0, 1];
/// The inner end.
pub(crate) const INNER_MAC: [u8; 6] = [0x02, 0x68, 0x76, 0, 0, 2];
/// What guests see as their router; the same after each restart, so that a resumed guest's ARP cache is right.
pub(crate) const ROUTER_MAC: [u8; 6] = [0x02, 0x68, 0x76, 0, 0, 3];
/// The next hop of routes into a VPC. It is only ever a key of the uplink's permanent neighbour: no packet carries it.
pub(crate) const INNER_NEXT_HOP: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 2);

/// The links of a namespace. The socket was opened inside and stays there.
#[derive(Clone)]
pub(crate) struct Links(Handle);

/// A route to one address (or to everything) through an interface.
pub(crate) struct Via {
    pub(crate) index: u32,
    pub(crate) next_hop: Option<Ipv4Addr>,
    /// The host's own address on packets that it sends this way.
    pub(crate) source: Option<Ipv4Addr>,
}

impl Links {
    pub(crate) async fn of(netns: &Netns) -> Result<Self, NetworkError> {
        let (connection, handle, _) = netns
            .run(|| rtnetlink::new_connection().map_err(|e| system_error("opening a netlink socket", e)))
            .await?;
        // Ends with the last handle.
        tokio::spawn(connection);
        Ok(Self(handle))
    }

    /// Index and name of every link.
    pub(crate) async fn list(&self) -> Result<Vec<(u32, String)>, NetworkError> {
        let links = self.states().await?.into_iter();
        Ok(links.map(|link| (link.index, link.name)).collect())
    }

    pub(crate) async fn find(&self, name: &str) -> Result<Option<u32>, NetworkError> {
        let found = self
            .0
            .link()
            .get()
            .match_name(name.to_owned())
            .execute()
            .try_next()
            .await;
        match found {
            Ok(link) => Ok(link.map(|link| link.header.index)),
            Err(e) if is_errno(&e, libc::ENODEV) => Ok(None),
            Err(e) => Err(failed(format!("looking for link {name}"))(e)),
        }
    }

    pub(crate) async fn delete(&self, index: u32) -> Result<(), NetworkError> {
        match self.0.link().del(index).execute().await {
            Err(e) if !is_errno(&e, libc::ENODEV) => Err(failed(format!("deleting link {index}"))(e)),
            _ => Ok(()),
        }
    }

    pub(crate) async fn set_up(&self, index: u32) -> Result<(), NetworkError> {
        let message = LinkUnspec::new_with_index(index).up().build();
        self.0
            .link()
            .set(message)
            .execute()
            .await
            .map_err(failed(format!("setting link {index} up")))
    }

    /// Leaves a link alone that is so already: setting a MAC, also the same, drops the link's neighbours.
    pub(crate) async fn set_up_as(&self, index: u32, mac: [u8; 6], mtu: u16) -> Result<(), NetworkError> {
        let is_so = |link: &LinkState| link.up && link.mac == Some(mac) && link.mtu == u32::from(mtu);
        if self.state(index).await?.as_ref().is_some_and(is_so) {
            return Ok(());
        }
        let message = LinkUnspec::new_with_index(index)
            .address(mac.to_vec())
            .mtu(u32::from(mtu))
            .up()
            .build();
        self.0
            .link()
            .set(message)
            .execute()
            .await
            .map_err(failed(format!("configuring link {index}")))
    }

    /// Makes the pair `uplink` (here) and `outer` (in `outer_netns`), both down.
    pub(crate) async fn add_uplink(
        &self,
        outer: &str,
        outer_netns: &Netns,
        mtu: u16,
    ) -> Result<(), NetworkError> {
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(outer)
            .address(OUTER_MAC.to_vec())
            .mtu(u32::from(mtu))
            .setns_by_fd(outer_netns.file().as_raw_fd())
            .build();
        let message = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(UPLINK)
            .address(INNER_MAC.to_vec())
            .mtu(u32::from(mtu))
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        self.0
            .link()
            .add(message)
            .execute()
            .await
            .map_err(failed(format!("making the uplink {outer}")))
    }

    /// Makes the link's IPv4 addresses (each a /32) exactly these; the loopback's own 127.0.0.1 stays.
    pub(crate) async fn set_addresses(
        &self,
        index: u32,
        wanted: &BTreeSet<Ipv4Addr>,
    ) -> Result<(), NetworkError> {
        let here: Vec<_> = self
            .0
            .address()
            .get()
            .set_link_index_filter(index)
            .execute()
            .try_collect()
            .await
            .map_err(failed("listing addresses"))?;
        let mut missing = wanted.clone();
        for message in here {
            let address = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
                _ => None,
            });
            let Some(address) = address.filter(|address| !address.is_loopback()) else {
                continue;
            };
            if !missing.remove(&address) {
                let removed = self.0.address().del(message).execute().await;
                removed.map_err(failed(format!("removing address {address}")))?;
            }
        }
        for address in missing {
            let added = self
                .0
                .address()
                .add(index, IpAddr::V4(address), 32)
                .execute()
                .await;
            added.map_err(failed(format!("adding address {address}")))?;
        }
        Ok(())
    }

    pub(crate) async fn set_neighbour(
        &self,
        index: u32,
        address: Ipv4Addr,
        mac: [u8; 6],
    ) -> Result<(), NetworkError> {
        let neighbours = self.0.neighbours();
        let request = neighbours
            .add(index, IpAddr::V4(address))
            .link_layer_address(&mac)
            .replace();
        request
            .execute()
            .await
            .map_err(failed(format!("binding {address} to its MAC")))
    }

    pub(crate) async fn set_inner_next_hop(&self, index: u32) -> Result<Via, NetworkError> {
        self.set_neighbour(index, INNER_NEXT_HOP, INNER_MAC).await?;
        Ok(Via {
            index,
            next_hop: Some(INNER_NEXT_HOP),
            source: None,
        })
    }

    /// Routes `to` (a prefix length of 0 means everything) by `via`, instead of where it went before.
    pub(crate) async fn set_route(&self, to: Ipv4Addr, prefix: u8, via: &Via) -> Result<(), NetworkError> {
        let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(to, prefix)
            .output_interface(via.index);
        route = match via.next_hop {
            // On link: the next hop needs no address or route of its own.
            Some(next_hop) => route.gateway(next_hop).onlink(),
            None => route.scope(RouteScope::Link),
        };
        if let Some(source) = via.source {
            route = route.pref_source(source);
        }
        self.replace_route(route.build(), to, prefix).await
    }

    /// Packets to `to` that no longer prefix claims end here.
    pub(crate) async fn set_unreachable(&self, to: Ipv4Addr, prefix: u8) -> Result<(), NetworkError> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(to, prefix)
            .kind(RouteType::Unreachable)
            .build();
        self.replace_route(route, to, prefix).await
    }

    async fn replace_route(&self, route: RouteMessage, to: Ipv4Addr, prefix: u8) -> Result<(), NetworkError> {
        let replaced = self.0.route().add(route).replace().execute().await;
        replaced.map_err(failed(format!("routing {to}/{prefix}")))
    }

    /// The destinations of all unicast routes but those through links whose name begins with `but_by`.
    pub(crate) async fn networks(&self, but_by: &str) -> Result<BTreeSet<Ipv4Net>, NetworkError> {
        let links = self.list().await?;
        let excluded = |index: u32| {
            links
                .iter()
                .any(|(other, name)| *other == index && name.starts_with(but_by))
        };
        let routes = self.route_messages().await?;
        let networks = routes
            .iter()
            .filter(|route| route.header.kind == RouteType::Unicast)
            .filter_map(|route| {
                let mut to = None;
                for attribute in &route.attributes {
                    match attribute {
                        RouteAttribute::Oif(index) if excluded(*index) => return None,
                        RouteAttribute::Destination(RouteAddress::Inet(address)) => to = Some(*address),
                        _ => {}
                    }
                }
                Ipv4Net::new(to?, route.header.destination_prefix_length).ok()
            });
        Ok(networks.collect())
    }

    /// Removes the /32 routes by `index` to any other address than `wanted`.
    pub(crate) async fn retain_routes(
        &self,
        index: u32,
        wanted: &BTreeSet<Ipv4Addr>,
    ) -> Result<(), NetworkError> {
        let filter = RouteMessageBuilder::<Ipv4Addr>::new()
            .output_interface(index)
            .build();
        let routes: Vec<RouteMessage> = self
            .0
            .route()
            .get(filter)
            .execute()
            .try_collect()
            .await
            .map_err(failed("listing routes"))?;
        for route in routes {
            let by_this = route
                .attributes
                .iter()
                .any(|a| matches!(a, RouteAttribute::Oif(oif) if *oif == index));
            let to = route.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(to)) => Some(*to),
                _ => None,
            });
            let Some(to) = to.filter(|_| by_this && route.header.kind == RouteType::Unicast) else {
                continue;
            };
            if route.header.destination_prefix_length == 32 && !wanted.contains(&to) {
                let removed = self.0.route().del(route).execute().await;
                removed.map_err(failed(format!("removing the route to {to}")))?;
            }
        }
        Ok(())
    }
}

fn failed(action: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> NetworkError {
    let action = action.into();
    move |error| {
        let source = match &error {
            rtnetlink::Error::NetlinkError(message) => io::Error::from_raw_os_error(-message.raw_code()),
            _ => io::Error::other(error),
        };
        system_error(action, source)
    }
}

fn is_errno(error: &rtnetlink::Error, errno: i32) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code() == -errno)
}
