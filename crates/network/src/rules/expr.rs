//! Short constructors of the `nftables` crate's expressions and statements.
//!
//! Values are numbers where `nft --numeric` lists numbers, so that what is listed equals what was asked for.

use std::borrow::Cow;

use ipnet::Ipv4Net;
use nftables::expr::{
    CT, CTDir, Expression, Map, Meta, MetaKey, NamedExpression, Payload, PayloadField, Prefix, Range,
    SetItem, Verdict,
};
use nftables::stmt::{JumpTarget, Match, NAT, NATFamily, Operator, Statement, VerdictMap};

pub(super) type Expr = Expression<'static>;
pub(super) type Stmt = Statement<'static>;

/// `NF_CT_STATE_*` bits, `include/uapi/linux/netfilter/nf_conntrack_common.h`.
pub(super) const CT_INVALID: u32 = 1;
pub(super) const CT_ESTABLISHED: u32 = 2;
pub(super) const CT_RELATED: u32 = 4;
pub(super) const CT_NEW: u32 = 8;
/// `IPS_DST_NAT`, same file.
pub(super) const CT_DNAT: u32 = 32;
/// `NFPROTO_IPV6`, `include/uapi/linux/netfilter.h`.
pub(super) const NFPROTO_IPV6: u32 = 10;
/// IP protocol numbers.
pub(super) const ICMP: u32 = 1;
pub(super) const TCP: u32 = 6;
pub(super) const UDP: u32 = 17;
/// ICMP types, RFC 792.
pub(super) const ICMP_REDIRECT: u32 = 5;
pub(super) const ICMP_ECHO_REQUEST: u32 = 8;

pub(super) fn text(value: impl Into<Cow<'static, str>>) -> Expr {
    Expression::String(value.into())
}

pub(super) fn number(value: impl Into<u32>) -> Expr {
    Expression::Number(value.into())
}

/// A single address for a /32, as `nft` lists it.
pub(super) fn network(net: &Ipv4Net) -> Expr {
    if net.prefix_len() == 32 {
        return text(net.addr().to_string());
    }
    Expression::Named(NamedExpression::Prefix(Prefix {
        addr: Box::new(text(net.network().to_string())),
        len: u32::from(net.prefix_len()),
    }))
}

pub(super) fn range(from: u16, to: u16) -> Expr {
    if from == to {
        return number(from);
    }
    Expression::Range(Box::new(Range {
        range: [number(from), number(to)],
    }))
}

/// An anonymous set.
pub(super) fn any_of(values: impl IntoIterator<Item = Expr>) -> Expr {
    Expression::Named(NamedExpression::Set(
        values.into_iter().map(SetItem::Element).collect(),
    ))
}

pub(super) fn named(set: &str) -> Expr {
    text(format!("@{set}"))
}

pub(super) fn concat(parts: impl Into<Vec<Expr>>) -> Expr {
    Expression::Named(NamedExpression::Concat(parts.into()))
}

pub(super) fn meta(key: MetaKey) -> Expr {
    Expression::Named(NamedExpression::Meta(Meta { key }))
}

pub(super) fn field(protocol: &'static str, field: &'static str) -> Expr {
    Expression::Named(NamedExpression::Payload(Payload::PayloadField(PayloadField {
        protocol: protocol.into(),
        field: field.into(),
    })))
}

pub(super) fn ct(key: &'static str) -> Expr {
    Expression::Named(NamedExpression::CT(CT {
        key: key.into(),
        family: None,
        dir: None,
    }))
}

/// An address of a connection's tuple: `ip saddr` or `ip daddr`. The key is as `nft` lists it.
pub(super) fn ct_address(dir: CTDir, key: &'static str) -> Expr {
    Expression::Named(NamedExpression::CT(CT {
        key: key.into(),
        family: None,
        dir: Some(dir),
    }))
}

fn matches(left: Expr, op: Operator, right: Expr) -> Stmt {
    Statement::Match(Match { left, right, op })
}

pub(super) fn is(left: Expr, right: Expr) -> Stmt {
    matches(left, Operator::EQ, right)
}

pub(super) fn is_not(left: Expr, right: Expr) -> Stmt {
    matches(left, Operator::NEQ, right)
}

/// Whether one of `bits` (lowest first, as they are listed) is set in conntrack's `key` (`state`, `status`).
pub(super) fn ct_has(key: &'static str, bits: &[u32]) -> Stmt {
    let right = match bits {
        [bit] => number(*bit),
        bits => Expression::List(bits.iter().map(|bit| number(*bit)).collect()),
    };
    matches(ct(key), Operator::IN, right)
}

pub(super) fn tracked() -> Stmt {
    ct_has("state", &[CT_ESTABLISHED, CT_RELATED])
}

pub(super) fn iifname(name: impl Into<Cow<'static, str>>) -> Stmt {
    is(meta(MetaKey::Iifname), text(name))
}

pub(super) fn oifname(name: impl Into<Cow<'static, str>>) -> Stmt {
    is(meta(MetaKey::Oifname), text(name))
}

pub(super) fn accept() -> Stmt {
    Statement::Accept(None)
}

pub(super) fn drop() -> Stmt {
    Statement::Drop(None)
}

pub(super) fn jump(chain: String) -> Stmt {
    Statement::Jump(JumpTarget { target: chain.into() })
}

/// A verdict as an element of a map.
pub(super) fn goto(chain: String) -> Expr {
    Expression::Verdict(Verdict::Goto(JumpTarget { target: chain.into() }))
}

pub(super) fn goto_chain(chain: &'static str) -> Stmt {
    Statement::Goto(JumpTarget { target: chain.into() })
}

pub(super) fn vmap(key: Expr, map: &str) -> Stmt {
    Statement::VerdictMap(VerdictMap {
        key,
        data: named(map),
    })
}

/// The translation of an address that the map `map` gives for the packet's `address` (`saddr`, `daddr`).
pub(super) fn translation(address: &'static str, map: &str) -> Option<NAT<'static>> {
    Some(NAT {
        addr: Some(Expression::Named(NamedExpression::Map(Box::new(Map {
            key: field("ip", address),
            data: named(map),
        })))),
        family: Some(NATFamily::IP),
        port: None,
        flags: None,
    })
}
