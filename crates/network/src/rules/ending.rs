//! The table of addresses that change hands: loaded with the rules of the new holders, and removed when the old ones'
//! connections have ended. In between nobody gets a packet of a connection that was another's. It is the kernel's, so an
//! agent that was killed in between finds it and goes on.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use nftables::expr::CTDir;
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};
use serde_json::Value;

use super::compare::listed_elements;
use super::expr::{ct_address, drop, is, named};
use super::table::Table;

const SET: &str = "ending";
/// Before the chains that accept tracked connections.
const PRIORITY: i32 = -10;

pub(super) fn table(addresses: &BTreeSet<Ipv4Addr>) -> Table {
    let mut table = Table::new(NfFamily::INet, "ending");
    table.changing_set(SET, &[], addresses.iter().copied().map(Ipv4Net::from));
    let base = (
        NfChainType::Filter,
        NfHook::Forward,
        PRIORITY,
        NfChainPolicy::Accept,
    );
    table.base_chain("forward", base);
    for direction in [CTDir::Original, CTDir::Reply] {
        for address in ["ip saddr", "ip daddr"] {
            table.rule(
                "forward",
                [is(ct_address(direction, address), named(SET)), drop()],
            );
        }
    }
    table
}

/// The addresses of a table that is loaded.
pub(super) fn addresses(listed: &[Value]) -> BTreeSet<Ipv4Addr> {
    let elements = listed_elements(listed, SET).iter();
    elements
        .filter_map(|element| element.as_str()?.parse().ok())
        .collect()
}
