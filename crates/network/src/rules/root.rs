//! The rules that a VPC needs in the root namespace: masquerading, forwarding, and a closed door to the host itself.

use ipnet::Ipv4Net;
use nftables::expr::MetaKey;
use nftables::schema::SetFlag;
use nftables::stmt::Statement;
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};

use super::expr::*;
use super::table::Table;
use crate::names::{root_table_of, uplink_name};
use crate::plan::Plan;
use crate::reach::Reach;

/// Any VPC's uplink.
pub(super) const UPLINKS: &str = "hv*";
/// Networks of the host that guests do not reach.
const HOST_NETWORKS: &str = "host_networks";
/// Networks that the operator lets guests reach.
const GUEST_NETWORKS: &str = "guest_networks";

pub(super) fn empty_table(vpc_id: &str) -> Table {
    Table::new(NfFamily::INet, root_table_of(vpc_id))
}

/// An accept here ends only this table: a host whose own rules drop forwarded packets by default (Docker's do) must
/// admit `hv*` itself.
pub(super) fn table(plan: &Plan, reach: &Reach) -> Table {
    let mut table = empty_table(&plan.vpc_id);
    let uplink = uplink_name(&plan.vpc_id);
    let pool = network(&plan.public_pool.trunc());
    let accept_by_default = |hook, priority| (NfChainType::Filter, hook, priority, NfChainPolicy::Accept);

    let masquerading = (NfChainType::NAT, NfHook::Postrouting, 100, NfChainPolicy::Accept);
    table.base_chain("leaving", masquerading);
    // The pool is known on this host only.
    table.rule(
        "leaving",
        [
            is_not(meta(MetaKey::Oifname), text(UPLINKS)),
            is(field("ip", "saddr"), pool.clone()),
            Statement::Masquerade(None),
        ],
    );

    let networks = |nets: &[Ipv4Net]| Ipv4Net::aggregate(&nets.to_vec()).into_iter();
    table.changing_set(
        HOST_NETWORKS,
        &[SetFlag::Interval],
        networks(&reach.host_networks),
    );
    table.changing_set(
        GUEST_NETWORKS,
        &[SetFlag::Interval],
        networks(&reach.guest_networks),
    );
    table.base_chain("forwarding", accept_by_default(NfHook::Forward, 0));
    let from_uplink = || iifname(uplink.clone());
    table.rule(
        "forwarding",
        [from_uplink(), is_not(field("ip", "saddr"), pool.clone()), drop()],
    );
    // Answers to what came in by those networks.
    table.rule("forwarding", [from_uplink(), tracked(), accept()]);
    // Other VPCs, by their public addresses.
    table.rule("forwarding", [from_uplink(), oifname(UPLINKS), accept()]);
    let to = |set| is(field("ip", "daddr"), named(set));
    table.rule("forwarding", [from_uplink(), to(GUEST_NETWORKS), accept()]);
    table.rule("forwarding", [from_uplink(), to(HOST_NETWORKS), drop()]);
    table.rule("forwarding", [from_uplink(), accept()]);
    table.rule("forwarding", [oifname(uplink.clone()), accept()]);

    // Guests see no port of the host; answers to what the host itself began come back.
    table.base_chain("to_host", accept_by_default(NfHook::Input, 0));
    table.rule("to_host", [from_uplink(), tracked(), accept()]);
    table.rule(
        "to_host",
        [
            from_uplink(),
            is(field("ip", "saddr"), pool),
            is(field("icmp", "type"), number(ICMP_ECHO_REQUEST)),
            accept(),
        ],
    );
    table.rule("to_host", [from_uplink(), drop()]);
    table
}
