//! The two tables of a VPC's namespace.
//!
//! `inet vpc`, in the order in which a packet meets the hooks:
//! 1. `antispoof`, before fragments are put together, since those of two interfaces could meet there.
//! 2. `nat_in` and `nat_out`: the internet gateway, one public address for one private.
//! 3. `input`: what the namespace itself answers (DHCP, DNS, IMDS, ping).
//! 4. `egress` then `ingress`, both on the forward hook: an accept in the first leads to the second. Rules of a
//!    security group are in chains that all of its interfaces jump to, and end in accept; falling through drops.
//!
//! Tracked connections pass first, so that revoking a rule stops new connections at once and lets tracked ones end by
//! themselves, as EC2 documents. A public address that is taken away takes its connections with it.
//!
//! `arp vpc` admits only ARP with the bound interface, MAC and address.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::names::{UPLINK, mac_text, tap_name};
use crate::plan::{IMDS_ADDRESS, Plan};
use crate::spec::{EniSpec, Peer, Protocol, RuleSpec};

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

pub(super) fn members_set(group_id: &str) -> String {
    format!("{group_id}-members")
}

pub(super) fn tables(plan: &Plan) -> String {
    let mut text = String::from("table inet vpc {\n");
    sets(&mut text, plan);
    base_chains(&mut text, plan);
    group_chains(&mut text, plan);
    interface_chains(&mut text, plan);
    text.push_str("}\n");
    arp_table(&mut text, plan);
    text
}

fn sets(text: &mut String, plan: &Plan) {
    let bound = plan.enis.iter().map(triple);
    named(text, "set", "bound", "ifname . ether_addr . ipv4_addr", bound);
    let unnumbered = plan
        .enis
        .iter()
        .map(|eni| format!("{} . {}", tap(eni), mac_text(&eni.mac)));
    named(text, "set", "unnumbered", "ifname . ether_addr", unnumbered);

    let public: Vec<_> = plan
        .enis
        .iter()
        .filter_map(|eni| eni.public_ip.map(|ip| (eni.private_ip, ip)))
        .collect();
    named(
        text,
        "set",
        "with_public",
        "ipv4_addr",
        public.iter().map(|(private, _)| private.to_string()),
    );
    let pairs = public
        .iter()
        .map(|(private, public)| format!("{private} . {public}"));
    named(text, "set", "public_pairs", "ipv4_addr . ipv4_addr", pairs);
    let outward = public
        .iter()
        .map(|(private, public)| format!("{private} : {public}"));
    named(text, "map", "public_of", "ipv4_addr : ipv4_addr", outward);
    let inward = public
        .iter()
        .map(|(private, public)| format!("{public} : {private}"));
    named(text, "map", "private_of", "ipv4_addr : ipv4_addr", inward);

    for group in &plan.security_groups {
        named(
            text,
            "set",
            &members_set(&group.group_id),
            "ipv4_addr",
            std::iter::empty(),
        );
    }
    for direction in [Direction::Out, Direction::In] {
        let suffix = direction.suffix();
        let verdicts = plan
            .enis
            .iter()
            .map(|eni| format!("{} : goto {}-{suffix}", tap(eni), eni.eni_id));
        named(
            text,
            "map",
            &format!("chain_{suffix}"),
            "ifname : verdict",
            verdicts,
        );
    }
}

fn base_chains(text: &mut String, plan: &Plan) {
    let [dns, dns_link_local] = plan.dns();
    let _ = write!(
        text,
        r#"	chain antispoof {{
		type filter hook prerouting priority -450; policy drop;
		iifname {{ "lo", "{UPLINK}" }} accept
		meta nfproto ipv6 drop
		ip saddr 0.0.0.0 udp sport 68 udp dport 67 iifname . ether saddr @unnumbered accept
		iifname . ether saddr . ip saddr @bound accept
	}}
	chain nat_in {{
		type nat hook prerouting priority dstnat; policy accept;
		iifname "{UPLINK}" dnat ip to ip daddr map @private_of
	}}
	chain nat_out {{
		type nat hook postrouting priority srcnat; policy accept;
		oifname "{UPLINK}" snat ip to ip saddr map @public_of
	}}
	chain input {{
		type filter hook input priority filter; policy drop;
		iifname "lo" accept
		iifname "{UPLINK}" drop
		ct state established,related accept
		ct state invalid drop
		udp sport 68 udp dport 67 accept
		ip daddr {IMDS_ADDRESS} tcp dport 80 accept
		ip daddr {{ {dns}, {dns_link_local} }} meta l4proto {{ tcp, udp }} th dport 53 accept
		icmp type echo-request accept
	}}
	chain egress {{
		type filter hook forward priority filter; policy drop;
		icmp type redirect drop
		ip daddr {{ 0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16 }} drop
		ct status snat ct original ip saddr . ct reply ip daddr != @public_pairs drop
		ct status dnat ct reply ip saddr . ct original ip daddr != @public_pairs drop
		ct state established,related accept
		ct state invalid drop
		iifname "{UPLINK}" ct status dnat accept
		iifname vmap @chain_out
	}}
	chain ingress {{
		type filter hook forward priority filter + 10; policy drop;
		ct state established,related accept
		oifname "{UPLINK}" ip saddr @with_public accept
		oifname vmap @chain_in
	}}
"#
    );
}

fn group_chains(text: &mut String, plan: &Plan) {
    let known: BTreeSet<&str> = plan
        .security_groups
        .iter()
        .map(|group| group.group_id.as_str())
        .collect();
    for group in &plan.security_groups {
        for (direction, rules) in [(Direction::In, &group.ingress), (Direction::Out, &group.egress)] {
            let _ = writeln!(text, "\tchain {}-{} {{", group.group_id, direction.suffix());
            for rule in rules.iter().collect::<BTreeSet<_>>() {
                match &rule.peer {
                    // A group without a set has no members that this host could know.
                    Peer::Group(id) if !known.contains(id.as_str()) => continue,
                    _ => text.push_str(&rule_line(rule, direction)),
                }
            }
            text.push_str("\t}\n");
        }
    }
}

fn rule_line(rule: &RuleSpec, direction: Direction) -> String {
    let mut line = String::from("\t\t");
    let field = direction.peer_field();
    match &rule.peer {
        Peer::Cidr(net) if net.prefix_len() == 0 => {}
        Peer::Cidr(net) => {
            let _ = write!(line, "ip {field} {} ", net.trunc());
        }
        Peer::Group(id) => {
            let _ = write!(line, "ip {field} @{} ", members_set(id));
        }
    }
    let _ = match rule.protocol {
        Protocol::All => Ok(()),
        Protocol::Tcp { from, to } => write!(line, "tcp dport {from}-{to} "),
        Protocol::Udp { from, to } => write!(line, "udp dport {from}-{to} "),
        Protocol::Icmp { kind: None, .. } => write!(line, "meta l4proto icmp "),
        Protocol::Icmp {
            kind: Some(kind),
            code: None,
        } => write!(line, "icmp type {kind} "),
        Protocol::Icmp {
            kind: Some(kind),
            code: Some(code),
        } => {
            write!(line, "icmp type {kind} icmp code {code} ")
        }
        Protocol::Other(number) => write!(line, "meta l4proto {number} "),
    };
    line.push_str("accept\n");
    line
}

fn interface_chains(text: &mut String, plan: &Plan) {
    for eni in &plan.enis {
        for direction in [Direction::In, Direction::Out] {
            let suffix = direction.suffix();
            let _ = writeln!(text, "\tchain {}-{suffix} {{", eni.eni_id);
            for group in &plan.security_groups {
                if eni.security_group_ids.contains(&group.group_id) {
                    let _ = writeln!(text, "\t\tjump {}-{suffix}", group.group_id);
                }
            }
            text.push_str("\t\tdrop\n\t}\n");
        }
    }
}

fn arp_table(text: &mut String, plan: &Plan) {
    text.push_str("table arp vpc {\n");
    named(
        text,
        "set",
        "bound",
        "ifname . ether_addr . ipv4_addr",
        plan.enis.iter().map(triple),
    );
    text.push_str(
        "\tchain input {\n\
         \t\ttype filter hook input priority filter; policy drop;\n\
         \t\tiifname . arp saddr ether . arp saddr ip @bound iifname . ether saddr . arp saddr ip @bound accept\n\
         \t}\n}\n",
    );
}

fn tap(eni: &EniSpec) -> String {
    format!("\"{}\"", tap_name(&eni.eni_id))
}

fn triple(eni: &EniSpec) -> String {
    format!("{} . {} . {}", tap(eni), mac_text(&eni.mac), eni.private_ip)
}

fn named(text: &mut String, kind: &str, name: &str, of: &str, elements: impl Iterator<Item = String>) {
    let _ = writeln!(text, "\t{kind} {name} {{\n\t\ttype {of}");
    let elements: Vec<String> = elements.collect();
    if !elements.is_empty() {
        let _ = writeln!(text, "\t\telements = {{ {} }}", elements.join(", "));
    }
    text.push_str("\t}\n");
}
