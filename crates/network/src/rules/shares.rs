//! `inet shares`: how many tracked connections one interface, and one VPC, may have.
//!
//! The kernel's table of connections is as large for a whole VPC as for the host itself, and the host's own holds what
//! leaves the VPC. Three shares keep one guest from filling either:
//! - connections that an interface began,
//! - connections from outside that came to an interface's public address,
//! - connections of the VPC that pass the uplink, which the host tracks, too.
//!
//! `ct count` walks all connections of a share for each new one (1.5 ms at 16,384, measured), so a share is cut into
//! [`PARTS`] by a hash of the connection, each with its part of the limit. Hashing is uneven: the first part is full when
//! the whole is at 60 to 75 %.
//!
//! The table does not change with the VPC's rules: a new table would begin to count anew.

use nftables::expr::{Expression, JHash, MetaKey, NamedExpression};
use nftables::schema::SetType;
use nftables::stmt::{AnonymousCounter, CTCount, Counter, Mangle, SetOp, Statement};
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};
use serde_json::Value;

use super::compare::listed_elements;
use super::expr::*;
use super::table::Table;
use crate::names::UPLINK;

const PARTS: u32 = 256;
/// Interfaces of one VPC on one host, times [`PARTS`]. A full set would admit everything.
const SET_SIZE: u32 = 1 << 20;
/// How long a count of refused packets is kept after the last of them, in seconds.
const MEMORY: u32 = 24 * 60 * 60;
/// Keyed by TAP.
const REFUSED: &str = "refused";
/// Keyed by public address.
const REFUSED_FROM_OUTSIDE: &str = "refused_from_outside";

/// Limits, in tracked connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectionShares {
    /// That one interface began; as many again may come to it from outside.
    pub(crate) interface: u32,
    /// Of one VPC, through its uplink.
    pub(crate) uplink: u32,
}

impl ConnectionShares {
    /// Of a host that tracks at most `maximum` connections (`net.netfilter.nf_conntrack_max`): a sixteenth for an
    /// interface, an eighth for what one VPC adds to the host's own table.
    pub(crate) fn of(maximum: u32) -> Self {
        Self {
            interface: (maximum / 16).max(4096),
            uplink: (maximum / 8).max(8192),
        }
    }
}

/// New connections that were refused.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused<'k> {
    /// A TAP or a public address.
    pub(crate) key: &'k str,
    pub(crate) packets: u64,
}

pub(super) fn table(shares: ConnectionShares) -> Table {
    let mut table = Table::new(NfFamily::INet, "shares");
    let by_address = &[SetType::Ipv4Addr, SetType::Mark];
    table.set_of_packets("begun", by_address, SET_SIZE, None);
    table.set_of_packets("from_outside", by_address, SET_SIZE, None);
    table.set_of_packets("through_uplink", &[SetType::Mark], PARTS, None);
    table.set_of_packets(REFUSED, &[SetType::Ifname], SET_SIZE, Some(MEMORY));
    table.set_of_packets(REFUSED_FROM_OUTSIDE, &[SetType::Ipv4Addr], SET_SIZE, Some(MEMORY));

    let base = |hook, priority| (NfChainType::Filter, hook, priority, NfChainPolicy::Accept);
    // After conntrack, before the internet gateway translates addresses.
    table.base_chain("arriving", base(NfHook::Prerouting, -150));
    // Before the security groups.
    table.base_chain("leaving", base(NfHook::Forward, -20));
    table.chain("refuse");
    table.chain("refuse_from_outside");

    let part = || meta(MetaKey::Mark);
    table.rule(
        "arriving",
        [
            ct_has("state", &[CT_INVALID, CT_ESTABLISHED, CT_RELATED]),
            accept(),
        ],
    );
    table.rule("arriving", [iifname("lo"), accept()]);
    // DHCP.
    table.rule("arriving", [is(field("ip", "saddr"), text("0.0.0.0")), accept()]);
    table.rule("arriving", [set_part()]);
    let over = |share: u32| {
        Statement::CTCount(CTCount {
            val: number(share / PARTS),
            inv: Some(true),
        })
    };
    let from_outside = concat([field("ip", "daddr"), part()]);
    table.rule_updating(
        "arriving",
        [iifname(UPLINK)],
        ("from_outside", SetOp::Add, from_outside, over(shares.interface)),
        [goto_chain("refuse_from_outside")],
    );
    table.rule_updating(
        "arriving",
        [iifname(UPLINK)],
        ("through_uplink", SetOp::Add, part(), over(shares.uplink)),
        [goto_chain("refuse_from_outside")],
    );
    let begun = concat([field("ip", "saddr"), part()]);
    table.rule_updating(
        "arriving",
        [is_not(meta(MetaKey::Iifname), text(UPLINK))],
        ("begun", SetOp::Add, begun, over(shares.interface)),
        [goto_chain("refuse")],
    );
    table.rule_updating(
        "leaving",
        [oifname(UPLINK), ct_has("state", &[CT_NEW])],
        ("through_uplink", SetOp::Add, part(), over(shares.uplink)),
        [goto_chain("refuse")],
    );
    let count = || Statement::Counter(Counter::Anonymous(None::<AnonymousCounter>));
    for (chain, set, key) in [
        ("refuse", REFUSED, meta(MetaKey::Iifname)),
        ("refuse_from_outside", REFUSED_FROM_OUTSIDE, field("ip", "daddr")),
    ] {
        table.rule_updating(chain, [], (set, SetOp::Update, key, count()), []);
        table.rule(chain, [drop()]);
    }
    table
}

/// Chooses the connection's part of its shares. Nothing else in a VPC's namespace uses packet marks.
fn set_part() -> Stmt {
    let connection = concat([
        field("ip", "saddr"),
        field("ip", "daddr"),
        field("th", "sport"),
        field("th", "dport"),
    ]);
    Statement::Mangle(Mangle {
        key: meta(MetaKey::Mark),
        value: Expression::Named(NamedExpression::JHash(JHash {
            hash_mod: PARTS,
            offset: None,
            expr: Box::new(connection),
            seed: None,
        })),
    })
}

/// What was refused, by what is loaded.
pub(super) fn refused(listed: &[Value]) -> impl Iterator<Item = Refused<'_>> {
    let sets = [REFUSED, REFUSED_FROM_OUTSIDE];
    let elements = sets.into_iter().flat_map(|set| listed_elements(listed, set));
    elements.filter_map(|element| {
        let element = element.get("elem")?;
        Some(Refused {
            key: element.get("val")?.as_str()?,
            packets: element.pointer("/counter/packets")?.as_u64()?,
        })
    })
}
