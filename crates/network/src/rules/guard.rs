//! What keeps a host whose forwarding Hearth has switched on from being a router between its other networks.

use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};

use super::expr::{accept, iifname, oifname};
use super::root::UPLINKS;
use super::table::Table;

/// Bridges of other software that forwards for guests of its own, and has its own rules for it: Docker, libvirt, LXD,
/// Incus, Podman, CNI.
const NEIGHBOURS: [&str; 8] = [
    "docker*", "br-*", "virbr*", "lxdbr*", "incusbr*", "lxcbr*", "podman*", "cni*",
];

/// Only IPv4: Hearth does not switch on IPv6 forwarding.
pub(super) fn table() -> Table {
    let mut table = empty_table();
    let base = (NfChainType::Filter, NfHook::Forward, 0, NfChainPolicy::Drop);
    table.base_chain("forward", base);
    for links in [UPLINKS].into_iter().chain(NEIGHBOURS) {
        table.rule("forward", [iifname(links), accept()]);
        table.rule("forward", [oifname(links), accept()]);
    }
    table
}

pub(super) fn empty_table() -> Table {
    Table::new(NfFamily::IP, "hearth-forwarding")
}
