//! What somebody has changed of a VPC's links, addresses, routes, neighbours and switches. Rules are compared elsewhere.
//!
//! Everything here is read; [`crate::vpc::Vpc::apply`] makes all of it anew, without harm to what is right.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::Path;

use crate::NetworkError;
use crate::links::{INNER_MAC, INNER_NEXT_HOP, LinkState, Links, Neighbour, OUTER_MAC, ROUTER_MAC, Route};
use crate::names::{UPLINK, mac_text, tap_name, uplink_name};
use crate::netns::{Netns, file_error};
use crate::plan::Plan;

/// Switches of a VPC's namespace, under `/proc/sys`, and what they are. `default` is what links get that come later.
pub(crate) const NAMESPACE: &[(&str, &str)] = &[
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv4/conf/all/arp_ignore", "0"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
    ("net/ipv4/conf/all/accept_redirects", "0"),
    ("net/ipv4/conf/default/accept_redirects", "0"),
    ("net/ipv4/conf/all/accept_source_route", "0"),
    ("net/ipv4/conf/default/proxy_arp", "1"),
];

/// The switches of a link in a VPC's namespace.
pub(crate) fn of_link(name: &str) -> [(String, &'static str); 3] {
    let proxy_arp = if name == UPLINK { "0" } else { "1" };
    [
        (format!("net/ipv4/conf/{name}/proxy_arp"), proxy_arp),
        (format!("net/ipv4/conf/{name}/rp_filter"), "0"),
        (format!("net/ipv4/conf/{name}/forwarding"), "1"),
    ]
}

/// The links of a namespace and what belongs to them, as the kernel lists them now.
struct Seen {
    links: Vec<LinkState>,
    addresses: BTreeMap<u32, BTreeSet<Ipv4Addr>>,
    routes: BTreeSet<Route>,
    neighbours: BTreeSet<Neighbour>,
}

impl Seen {
    async fn of(links: &Links) -> Result<Self, NetworkError> {
        Ok(Self {
            links: links.states().await?,
            addresses: links.addresses().await?,
            routes: links.routes().await?,
            neighbours: links.neighbours().await?,
        })
    }

    fn link(&self, name: &str) -> Option<&LinkState> {
        self.links.iter().find(|link| link.name == name)
    }

    /// A link that must be there.
    fn demand(&self, name: &str, mac: Option<[u8; 6]>, mtu: Option<u16>) -> Result<u32, String> {
        let link = self.link(name).ok_or_else(|| format!("link {name} is gone"))?;
        if !link.up {
            return Err(format!("link {name} is down"));
        }
        if let Some(mac) = mac
            && link.mac != Some(mac)
        {
            return Err(format!("link {name} has another MAC than {}", mac_text(&mac)));
        }
        if let Some(mtu) = mtu
            && link.mtu != u32::from(mtu)
        {
            return Err(format!("link {name} has an MTU of {} instead of {mtu}", link.mtu));
        }
        Ok(link.index)
    }

    fn demand_route(&self, route: Route) -> Result<(), String> {
        match self.routes.contains(&route) {
            true => Ok(()),
            false => Err(format!(
                "the route to {}/{} is gone or another",
                route.to, route.prefix
            )),
        }
    }

    fn demand_neighbour(&self, index: u32, address: Ipv4Addr, mac: [u8; 6]) -> Result<(), String> {
        match self.neighbours.contains(&Neighbour { index, address, mac }) {
            true => Ok(()),
            false => Err(format!("{address} is not bound to {} any more", mac_text(&mac))),
        }
    }

    fn demand_addresses(&self, index: u32, wanted: &BTreeSet<Ipv4Addr>) -> Result<(), String> {
        let none = BTreeSet::new();
        let here = self.addresses.get(&index).unwrap_or(&none);
        match wanted.symmetric_difference(here).next() {
            None => Ok(()),
            Some(address) if wanted.contains(address) => Err(format!("address {address} is gone")),
            Some(address) => Err(format!("address {address} is somebody else's")),
        }
    }
}

/// The first difference within the VPC's namespace.
pub(crate) async fn inside(
    netns: &Netns,
    links: &Links,
    plan: &Plan,
    mtu: u16,
) -> Result<Option<String>, NetworkError> {
    let seen = Seen::of(links).await?;
    if let Err(difference) = compare_inside(&seen, plan, mtu) {
        return Ok(Some(difference));
    }
    let taps = plan.enis.iter().map(|eni| tap_name(&eni.eni_id));
    let present = taps.filter(|tap| seen.link(tap).is_some());
    let switches: Vec<(String, &str)> = NAMESPACE
        .iter()
        .map(|(key, value)| ((*key).to_owned(), *value))
        .chain(present.chain([UPLINK.to_owned()]).flat_map(|link| of_link(&link)))
        .collect();
    netns.run(move || first_switch(&switches)).await
}

fn compare_inside(seen: &Seen, plan: &Plan, mtu: u16) -> Result<(), String> {
    let lo = seen.demand("lo", None, None)?;
    seen.demand_addresses(lo, &plan.local_addresses())?;
    let uplink = seen.demand(UPLINK, Some(INNER_MAC), Some(mtu))?;
    let gateway = plan.gateway();
    seen.demand_neighbour(uplink, gateway, OUTER_MAC)?;
    seen.demand_route(Route {
        to: Ipv4Addr::UNSPECIFIED,
        prefix: 0,
        by: Some(uplink),
        next_hop: Some(gateway),
    })?;
    seen.demand_route(Route {
        to: plan.cidr.network(),
        prefix: plan.cidr.prefix_len(),
        by: None,
        next_hop: None,
    })?;
    for eni in &plan.enis {
        let tap = tap_name(&eni.eni_id);
        // An instance that does not run has none.
        if seen.link(&tap).is_none() {
            continue;
        }
        let index = seen.demand(&tap, Some(ROUTER_MAC), Some(mtu))?;
        seen.demand_neighbour(index, eni.private_ip, eni.mac)?;
        seen.demand_route(Route {
            to: eni.private_ip,
            prefix: 32,
            by: Some(index),
            next_hop: None,
        })?;
    }
    Ok(())
}

/// The first difference in the root namespace.
pub(crate) async fn outside(links: &Links, plan: &Plan, mtu: u16) -> Result<Option<String>, NetworkError> {
    let seen = Seen::of(links).await?;
    Ok(compare_outside(&seen, plan, mtu).err())
}

fn compare_outside(seen: &Seen, plan: &Plan, mtu: u16) -> Result<(), String> {
    let outer = seen.demand(&uplink_name(&plan.vpc_id), Some(OUTER_MAC), Some(mtu))?;
    seen.demand_addresses(outer, &BTreeSet::from([plan.gateway()]))?;
    seen.demand_neighbour(outer, INNER_NEXT_HOP, INNER_MAC)?;
    for public in plan.enis.iter().filter_map(|eni| eni.public_ip) {
        seen.demand_route(Route {
            to: public,
            prefix: 32,
            by: Some(outer),
            next_hop: Some(INNER_NEXT_HOP),
        })?;
    }
    Ok(())
}

/// In the calling thread's namespace.
fn first_switch(switches: &[(String, &str)]) -> Result<Option<String>, NetworkError> {
    for (key, value) in switches {
        let path = Path::new("/proc/sys").join(key);
        match std::fs::read_to_string(&path) {
            Ok(now) if now.trim() == *value => {}
            Ok(now) => return Ok(Some(format!("{key} is {} instead of {value}", now.trim()))),
            // The link has gone meanwhile.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(file_error("reading", &path, e)),
        }
    }
    Ok(None)
}
