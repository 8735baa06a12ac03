//! The two tables of a VPC's namespace.
//!
//! `inet vpc`, in the order in which a packet meets the hooks:
//! 1. `antispoof`, before fragments are put together, since those of two interfaces could meet there.
//! 2. `nat_in` and `nat_out`: the internet gateway, one public address for one private.
//! 3. `routes`, before the others on the forward hook: what passes between a subnet and the internet gateway. It asks no
//!    connection tracking: a route that goes takes open connections along.
//! 4. `input`: what the namespace itself answers (DHCP, DNS, IMDS, ping).
//! 5. `egress` then `ingress`, both on the forward hook: an accept in the first leads to the second. Rules of a
//!    security group are in chains that all of its interfaces jump to, and end in accept; falling through drops.
//!
//! Tracked connections pass first, so that revoking a rule stops new connections at once and lets tracked ones end by
//! themselves, as EC2 documents; `tracking` ends those that EC2 does not track. An address that changes hands leaves its
//! connections behind: `ending`.
//!
//! `arp vpc` admits only ARP with the bound interface, MAC and address.

use std::collections::BTreeSet;

use ipnet::Ipv4Net;
use nftables::expr::MetaKey;
use nftables::schema::{SetFlag, SetType};
use nftables::stmt::Statement;
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};

use super::expr::*;
use super::table::{Base, Table};
use crate::names::{UPLINK, mac_text, tap_name};
use crate::plan::{IMDS_ADDRESS, Plan};
use crate::spec::{EniSpec, Peer, Protocol, RuleSpec};

/// Binds TAP, MAC and private address.
pub(super) const BOUND: &str = "bound";
/// From public to private address.
pub(super) const PRIVATE_OF: &str = "private_of";

#[derive(Clone, Copy)]
enum Direction {
    In,
    Out,
}

impl Direction {
    fn suffix(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }

    /// The packet's address that a rule's peer is.
    fn peer_field(self) -> &'static str {
        match self {
            Self::In => "saddr",
            Self::Out => "daddr",
        }
    }
}

fn internet_set(subnet_id: &str) -> String {
    format!("{subnet_id}-internet")
}

fn members_set(group_id: &str) -> String {
    format!("{group_id}-members")
}

pub(super) fn tables(plan: &Plan) -> Vec<Table> {
    let mut table = Table::new(NfFamily::INet, "vpc");
    sets(&mut table, plan);
    antispoof(&mut table);
    gateway(&mut table);
    input(&mut table, plan);
    routes(&mut table, plan);
    forward(&mut table);
    group_chains(&mut table, plan);
    interface_chains(&mut table, plan);
    vec![table, arp_table(plan)]
}

fn sets(table: &mut Table, plan: &Plan) {
    let triple = &[SetType::Ifname, SetType::EtherAddr, SetType::Ipv4Addr];
    table.set(BOUND, triple, plan.enis.iter().map(bound));
    let unnumbered = plan.enis.iter().map(|eni| concat([tap(eni), mac(eni)]));
    table.set("unnumbered", &[SetType::Ifname, SetType::EtherAddr], unnumbered);

    let public = || {
        plan.enis
            .iter()
            .filter_map(|eni| Some([text(eni.private_ip.to_string()), text(eni.public_ip?.to_string())]))
    };
    table.set(
        "with_public",
        &[SetType::Ipv4Addr],
        public().map(|[private, _]| private),
    );
    table.address_map("public_of", public());
    table.address_map(PRIVATE_OF, public().map(|[private, public]| [public, private]));

    for group in &plan.security_groups {
        let members = group.members.iter().copied().map(Ipv4Net::from);
        table.changing_set(&members_set(&group.group_id), &[], members);
    }
    for direction in [Direction::Out, Direction::In] {
        let suffix = direction.suffix();
        let chain = |eni: &EniSpec| goto(format!("{}-{suffix}", eni.eni_id));
        let verdicts = plan.enis.iter().map(|eni| [tap(eni), chain(eni)]);
        table.verdict_map(&format!("chain_{suffix}"), SetType::Ifname, verdicts);
    }
}

fn filter(hook: NfHook, priority: i32) -> Base {
    (NfChainType::Filter, hook, priority, NfChainPolicy::Drop)
}

fn antispoof(table: &mut Table) {
    table.base_chain("antispoof", filter(NfHook::Prerouting, -450));
    let mut rule = |statements: Vec<Stmt>| table.rule("antispoof", statements);
    let own_links = any_of([text("lo"), text(UPLINK)]);
    rule(vec![is(meta(MetaKey::Iifname), own_links), accept()]);
    rule(vec![is(meta(MetaKey::Nfproto), number(NFPROTO_IPV6)), drop()]);
    let sender = [meta(MetaKey::Iifname), field("ether", "saddr")];
    rule(vec![
        is(field("ip", "saddr"), text("0.0.0.0")),
        is(field("udp", "sport"), number(68_u16)),
        is(field("udp", "dport"), number(67_u16)),
        is(concat(sender.clone()), named("unnumbered")),
        accept(),
    ]);
    let [interface, mac] = sender;
    rule(vec![
        is(concat([interface, mac, field("ip", "saddr")]), named(BOUND)),
        accept(),
    ]);
}

fn gateway(table: &mut Table) {
    let nat = |hook, priority| (NfChainType::NAT, hook, priority, NfChainPolicy::Accept);
    table.base_chain("nat_in", nat(NfHook::Prerouting, -100));
    let inward = Statement::DNAT(translation("daddr", PRIVATE_OF));
    table.rule("nat_in", [iifname(UPLINK), inward]);
    table.base_chain("nat_out", nat(NfHook::Postrouting, 100));
    let outward = Statement::SNAT(translation("saddr", "public_of"));
    table.rule("nat_out", [oifname(UPLINK), outward]);
}

fn input(table: &mut Table, plan: &Plan) {
    table.base_chain("input", filter(NfHook::Input, 0));
    let mut rule = |statements: Vec<Stmt>| table.rule("input", statements);
    rule(vec![iifname("lo"), accept()]);
    rule(vec![iifname(UPLINK), drop()]);
    rule(vec![tracked(), accept()]);
    rule(vec![ct_has("state", &[CT_INVALID]), drop()]);
    rule(vec![
        is(field("udp", "sport"), number(68_u16)),
        is(field("udp", "dport"), number(67_u16)),
        accept(),
    ]);
    rule(vec![
        is(field("ip", "daddr"), text(IMDS_ADDRESS.to_string())),
        is(field("tcp", "dport"), number(80_u16)),
        accept(),
    ]);
    if plan.dns {
        let dns = plan.dns().map(|address| text(address.to_string()));
        rule(vec![
            is(field("ip", "daddr"), any_of(dns)),
            is(meta(MetaKey::L4proto), any_of([number(TCP), number(UDP)])),
            is(field("th", "dport"), number(53_u16)),
            accept(),
        ]);
    }
    rule(vec![
        is(field("icmp", "type"), number(ICMP_ECHO_REQUEST)),
        accept(),
    ]);
}

/// The internet gateway's side is the uplink. Errors that routers send about packets that were let out come back from anywhere
/// (path MTU discovery).
fn routes(table: &mut Table, plan: &Plan) {
    table.base_chain("routes", filter(NfHook::Forward, -10));
    let mut rule = |statements: Vec<Stmt>| table.rule("routes", statements);
    let beside = |key| is_not(meta(key), text(UPLINK));
    rule(vec![beside(MetaKey::Iifname), beside(MetaKey::Oifname), accept()]);
    rule(vec![iifname(UPLINK), ct_has("state", &[CT_RELATED]), accept()]);
    rule(vec![oifname(UPLINK), vmap(meta(MetaKey::Iifname), "routes_out")]);
    rule(vec![iifname(UPLINK), vmap(meta(MetaKey::Oifname), "routes_in")]);
    for subnet in &plan.subnets {
        let set = internet_set(&subnet.subnet_id);
        table.changing_set(&set, &[SetFlag::Interval], subnet.internet.iter().copied());
        for direction in [Direction::Out, Direction::In] {
            let chain = format!("{}-{}", subnet.subnet_id, direction.suffix());
            table.chain(&chain);
            let leads = is(field("ip", direction.peer_field()), named(&set));
            table.rule(&chain, [leads, accept()]);
            table.rule(&chain, [drop()]);
        }
    }
    for direction in [Direction::Out, Direction::In] {
        let suffix = direction.suffix();
        let verdict = |eni| {
            let subnet = plan.subnet_of(eni)?;
            Some([tap(eni), goto(format!("{}-{suffix}", subnet.subnet_id))])
        };
        let verdicts = plan.enis.iter().filter_map(verdict);
        table.verdict_map(&format!("routes_{suffix}"), SetType::Ifname, verdicts);
    }
}

fn forward(table: &mut Table) {
    table.base_chain("egress", filter(NfHook::Forward, 0));
    let mut rule = |statements: Vec<Stmt>| table.rule("egress", statements);
    rule(vec![is(field("icmp", "type"), number(ICMP_REDIRECT)), drop()]);
    let nowhere = ["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16"];
    let nowhere = nowhere.iter().filter_map(|net| net.parse().ok());
    rule(vec![
        is(field("ip", "daddr"), any_of(nowhere.map(|net| network(&net)))),
        drop(),
    ]);
    rule(vec![tracked(), accept()]);
    rule(vec![ct_has("state", &[CT_INVALID]), drop()]);
    rule(vec![iifname(UPLINK), ct_has("status", &[CT_DNAT]), accept()]);
    rule(vec![vmap(meta(MetaKey::Iifname), "chain_out")]);

    table.base_chain("ingress", filter(NfHook::Forward, 10));
    let mut rule = |statements: Vec<Stmt>| table.rule("ingress", statements);
    rule(vec![tracked(), accept()]);
    rule(vec![
        oifname(UPLINK),
        is(field("ip", "saddr"), named("with_public")),
        accept(),
    ]);
    rule(vec![vmap(meta(MetaKey::Oifname), "chain_in")]);
}

fn group_chains(table: &mut Table, plan: &Plan) {
    let known: BTreeSet<&str> = plan
        .security_groups
        .iter()
        .map(|group| group.group_id.as_str())
        .collect();
    for group in &plan.security_groups {
        for (direction, rules) in [(Direction::In, &group.ingress), (Direction::Out, &group.egress)] {
            let chain = format!("{}-{}", group.group_id, direction.suffix());
            table.chain(&chain);
            for rule in rules.iter().collect::<BTreeSet<_>>() {
                match &rule.peer {
                    // A group without a set has no members that this host could know.
                    Peer::Group(id) if !known.contains(id.as_str()) => continue,
                    _ => table.rule(&chain, statements(rule, direction)),
                }
            }
        }
    }
}

fn statements(rule: &RuleSpec, direction: Direction) -> Vec<Stmt> {
    let peer = |is_in| is(field("ip", direction.peer_field()), is_in);
    let mut statements = match &rule.peer {
        Peer::Cidr(net) if net.prefix_len() == 0 => Vec::new(),
        Peer::Cidr(net) => vec![peer(network(&net.trunc()))],
        Peer::Group(id) => vec![peer(named(&members_set(id)))],
    };
    let protocol = |number_| is(meta(MetaKey::L4proto), number(number_));
    match rule.protocol {
        Protocol::All => {}
        Protocol::Tcp {
            from: 0,
            to: u16::MAX,
        } => statements.push(protocol(TCP)),
        Protocol::Udp {
            from: 0,
            to: u16::MAX,
        } => statements.push(protocol(UDP)),
        Protocol::Tcp { from, to } => statements.push(is(field("tcp", "dport"), range(from, to))),
        Protocol::Udp { from, to } => statements.push(is(field("udp", "dport"), range(from, to))),
        Protocol::Icmp { kind: None, .. } => statements.push(protocol(ICMP)),
        Protocol::Icmp {
            kind: Some(kind),
            code,
        } => {
            statements.push(is(field("icmp", "type"), number(kind)));
            statements.extend(code.map(|code| is(field("icmp", "code"), number(code))));
        }
        Protocol::Other(number) => statements.push(protocol(u32::from(number))),
    }
    statements.push(accept());
    statements
}

fn interface_chains(table: &mut Table, plan: &Plan) {
    for eni in &plan.enis {
        for direction in [Direction::In, Direction::Out] {
            let suffix = direction.suffix();
            let chain = format!("{}-{suffix}", eni.eni_id);
            table.chain(&chain);
            for group in &plan.security_groups {
                if eni.security_group_ids.contains(&group.group_id) {
                    table.rule(&chain, [jump(format!("{}-{suffix}", group.group_id))]);
                }
            }
            table.rule(&chain, [drop()]);
        }
    }
}

fn arp_table(plan: &Plan) -> Table {
    let mut table = Table::new(NfFamily::ARP, "vpc");
    let triple = &[SetType::Ifname, SetType::EtherAddr, SetType::Ipv4Addr];
    table.set(BOUND, triple, plan.enis.iter().map(bound));
    table.base_chain("input", filter(NfHook::Input, 0));
    let claims = |mac| {
        let claim = [meta(MetaKey::Iifname), mac, field("arp", "saddr ip")];
        is(concat(claim), named(BOUND))
    };
    let rule = [
        claims(field("arp", "saddr ether")),
        claims(field("ether", "saddr")),
        accept(),
    ];
    table.rule("input", rule);
    table
}

fn tap(eni: &EniSpec) -> Expr {
    text(tap_name(&eni.eni_id))
}

fn mac(eni: &EniSpec) -> Expr {
    text(mac_text(&eni.mac))
}

fn bound(eni: &EniSpec) -> Expr {
    concat([tap(eni), mac(eni), text(eni.private_ip.to_string())])
}
