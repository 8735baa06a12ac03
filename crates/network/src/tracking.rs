//! Which connections a change of security groups interrupts.
//!
//! EC2's user guide, "Security group connection tracking": a TCP or UDP flow is not tracked when a rule admits it from
//! (or to) everywhere, and a rule of the other direction admits all ports of its protocol to (or from) everywhere.
//! Tracked flows outlive the rule that admitted them; untracked ones are interrupted as soon as no rule admits them.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::conntrack::{Connection, Flow};
use crate::plan::Plan;
use crate::spec::{EniSpec, Peer, Protocol, RuleSpec};

const TCP: u8 = 6;
const UDP: u8 = 17;

#[derive(Clone, Copy)]
enum Direction {
    In,
    Out,
}

/// Whether a change from `before` to `after` can interrupt a connection at all.
pub(crate) fn may_interrupt(before: &Plan, after: &Plan) -> bool {
    let open = |plan: &Plan, eni: &EniSpec, direction| -> BTreeSet<RuleSpec> {
        let rules = rules(plan, eni, direction);
        rules.filter(|rule| is_everywhere(&rule.peer)).cloned().collect()
    };
    before.enis.iter().any(|old| {
        after.eni(&old.eni_id).is_some_and(|new| {
            [Direction::In, Direction::Out]
                .into_iter()
                .any(|direction| !open(before, old, direction).is_subset(&open(after, new, direction)))
        })
    })
}

/// Whether the connection was one that EC2 does not track under `before`, and is admitted no more under `after`.
pub(crate) fn interrupts(before: &Plan, after: &Plan, connection: &Connection) -> bool {
    let Connection { original, reply } = connection;
    let ends = |address, direction, peer| {
        let (Some(old), Some(new)) = (before.eni_by_address(address), after.eni_by_address(address)) else {
            return false;
        };
        is_untracked(before, old, direction, original) && !admits(after, new, direction, original, peer)
    };
    // Rules see the addresses that the sender's packets have before they leave by the internet gateway, and after they
    // have come in by it.
    ends(original.source, Direction::Out, original.destination)
        || ends(reply.source, Direction::In, original.source)
}

fn rules<'p>(plan: &'p Plan, eni: &'p EniSpec, direction: Direction) -> impl Iterator<Item = &'p RuleSpec> {
    let groups = plan.security_groups.iter();
    let groups = groups.filter(|group| eni.security_group_ids.contains(&group.group_id));
    groups.flat_map(move |group| match direction {
        Direction::In => &group.ingress,
        Direction::Out => &group.egress,
    })
}

fn is_everywhere(peer: &Peer) -> bool {
    matches!(peer, Peer::Cidr(net) if net.prefix_len() == 0)
}

fn is_untracked(plan: &Plan, eni: &EniSpec, direction: Direction, flow: &Flow) -> bool {
    let opposite = match direction {
        Direction::In => Direction::Out,
        Direction::Out => Direction::In,
    };
    let all_ports = |protocol| {
        matches!(
            (protocol, flow.protocol),
            (Protocol::All, _)
                | (
                    Protocol::Tcp {
                        from: 0,
                        to: u16::MAX
                    },
                    TCP
                )
                | (
                    Protocol::Udp {
                        from: 0,
                        to: u16::MAX
                    },
                    UDP
                )
        )
    };
    matches!(flow.protocol, TCP | UDP)
        && rules(plan, eni, direction).any(|rule| is_everywhere(&rule.peer) && covers(rule.protocol, flow))
        && rules(plan, eni, opposite).any(|rule| is_everywhere(&rule.peer) && all_ports(rule.protocol))
}

fn admits(plan: &Plan, eni: &EniSpec, direction: Direction, flow: &Flow, peer: Ipv4Addr) -> bool {
    rules(plan, eni, direction).any(|rule| {
        covers(rule.protocol, flow)
            && match &rule.peer {
                Peer::Cidr(net) => net.contains(&peer),
                Peer::Group(id) => {
                    let mut groups = plan.security_groups.iter();
                    groups.any(|group| group.group_id == *id && group.members.contains(&peer))
                }
            }
    })
}

fn covers(protocol: Protocol, flow: &Flow) -> bool {
    match protocol {
        Protocol::All => true,
        Protocol::Tcp { from, to } => flow.protocol == TCP && (from..=to).contains(&flow.destination_port),
        Protocol::Udp { from, to } => flow.protocol == UDP && (from..=to).contains(&flow.destination_port),
        // ICMP is always tracked.
        Protocol::Icmp { .. } => false,
        Protocol::Other(number) => flow.protocol == number,
    }
}
