//! Rules in EC2's words: normalising what callers give, and telling what is kept.

use std::collections::BTreeMap;

use hearth_api::v1::{
    IpPermission, IpRange, ReferencedSecurityGroup, RevokedSecurityGroupRule, SecurityGroupRule,
    UserIdGroupPair,
};
use hearth_api::{ApiError, ErrorCode, Kind};
use ipnet::{Ipv4Net, Ipv6Net};

use crate::state::SecurityGroupRule as RuleRow;
use crate::state::noun::tell_tags;

const ALL: i64 = -1;
const ICMP: i64 = 1;
const TCP: i64 = 6;
const UDP: i64 = 17;

/// Rules that one call may name: EC2's highest quota of rules per group.
/// <https://docs.aws.amazon.com/vpc/latest/userguide/amazon-vpc-limits.html>
const MAX_RULES_PER_CALL: usize = 1000;

/// Which packets a rule is about, in one spelling only. The identity of a rule, with its peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Traffic {
    /// IP protocol number, -1 for all.
    pub protocol: i64,
    /// First port or ICMP type, -1 for all.
    pub from: i64,
    /// Last port or ICMP code, -1 for all.
    pub to: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Peer {
    Cidr(Ipv4Net),
    /// As the caller named it: an id, or a name in the default VPC.
    Group {
        id: String,
        name: String,
    },
}

/// One rule: a permission comes apart into one per peer, as EC2 counts them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub traffic: Traffic,
    pub peer: Peer,
    pub description: String,
}

/// The rules that permissions stand for, in their order. `account` is the caller's.
///
/// # Errors
/// `InvalidParameterValue` for traffic that does not exist, no peer, or more than [`MAX_RULES_PER_CALL`];
/// `InvalidGroup.NotFound` for a group of another account.
pub(super) fn normalise(permissions: &[IpPermission], account: &str) -> Result<Vec<Wanted>, ApiError> {
    if permissions.is_empty() {
        return Err(ApiError::missing("IpPermissions"));
    }
    let peers = |p: &IpPermission| p.ip_ranges.len().saturating_add(p.user_id_group_pairs.len());
    let count = permissions.iter().map(peers).fold(0, usize::saturating_add);
    if count > MAX_RULES_PER_CALL {
        let expected = format!("A call can name {MAX_RULES_PER_CALL} rules.");
        return Err(ApiError::invalid_value(
            "IpPermissions",
            format!("{count} rules"),
            expected,
        ));
    }
    let mut rules = Vec::new();
    for permission in permissions {
        let traffic = traffic(permission)?;
        if !permission.ipv6_ranges.is_empty() || !permission.prefix_list_ids.is_empty() {
            return Err(ApiError::new(
                ErrorCode::InvalidParameterValue,
                "IPv6 ranges and prefix lists are not supported yet: give IPv4 ranges or security groups.",
            ));
        }
        if permission.ip_ranges.is_empty() && permission.user_id_group_pairs.is_empty() {
            return Err(ApiError::new(
                ErrorCode::InvalidParameterValue,
                "A permission names nobody: give an IP range or a security group.",
            ));
        }
        for range in &permission.ip_ranges {
            check_description(&range.description)?;
            rules.push(Wanted {
                traffic,
                peer: Peer::Cidr(cidr(&range.cidr_ip)?),
                description: range.description.clone(),
            });
        }
        for pair in &permission.user_id_group_pairs {
            check_description(&pair.description)?;
            if !pair.user_id.is_empty() && pair.user_id != account {
                let group = if pair.group_id.is_empty() {
                    &pair.group_name
                } else {
                    &pair.group_id
                };
                return Err(Kind::SecurityGroup.not_found(&[format!("{}/{group}", pair.user_id)]));
            }
            if pair.group_id.is_empty() == pair.group_name.is_empty() {
                return Err(ApiError::new(
                    ErrorCode::InvalidParameterCombination,
                    "Name a source group by its id or by its name, one of them.",
                ));
            }
            rules.push(Wanted {
                traffic,
                peer: Peer::Group {
                    id: pair.group_id.clone(),
                    name: pair.group_name.clone(),
                },
                description: pair.description.clone(),
            });
        }
    }
    Ok(rules)
}

/// Permissions without what Hearth has no rules for, IPv6 ranges and prefix lists, and these by themselves.
///
/// # Errors
/// `InvalidParameterValue` for a range that is none.
pub(super) fn apart(given: Vec<IpPermission>) -> Result<(Vec<IpPermission>, Vec<IpPermission>), ApiError> {
    let (mut ours, mut others) = (Vec::new(), Vec::new());
    for mut permission in given {
        let other = IpPermission {
            ipv6_ranges: std::mem::take(&mut permission.ipv6_ranges),
            prefix_list_ids: std::mem::take(&mut permission.prefix_list_ids),
            ip_ranges: Vec::new(),
            user_id_group_pairs: Vec::new(),
            ..permission.clone()
        };
        for range in &other.ipv6_ranges {
            let parsed: Result<Ipv6Net, _> = range.cidr_ipv6.parse();
            parsed.map_err(|_| malformed(&range.cidr_ipv6))?;
        }
        let is_other = !other.ipv6_ranges.is_empty() || !other.prefix_list_ids.is_empty();
        if !is_other || !permission.ip_ranges.is_empty() || !permission.user_id_group_pairs.is_empty() {
            ours.push(permission);
        }
        if is_other {
            others.push(other);
        }
    }
    Ok((ours, others))
}

fn traffic(permission: &IpPermission) -> Result<Traffic, ApiError> {
    let protocol = protocol(&permission.ip_protocol)?;
    let given = (
        permission.from_port.map(i64::from),
        permission.to_port.map(i64::from),
    );
    let (from, to) = match protocol {
        TCP | UDP => ports(&permission.ip_protocol, given)?,
        ICMP => icmp(given)?,
        // Others have no ports, and EC2 ignores what is given.
        _ => (ALL, ALL),
    };
    Ok(Traffic { protocol, from, to })
}

fn protocol(text: &str) -> Result<i64, ApiError> {
    let number = match text {
        "tcp" => Some(TCP),
        "udp" => Some(UDP),
        "icmp" => Some(ICMP),
        "" => return Err(ApiError::missing("IpProtocol")),
        number => number.parse().ok().filter(|n| (ALL..=255).contains(n)),
    };
    number.ok_or_else(|| {
        ApiError::invalid_value(
            "IpProtocol",
            text,
            "Expecting tcp, udp, icmp, a protocol number, or -1 for all.",
        )
    })
}

fn ports(protocol: &str, given: (Option<i64>, Option<i64>)) -> Result<(i64, i64), ApiError> {
    match given {
        (Some(from), Some(to)) if (0..=65_535).contains(&from) && (from..=65_535).contains(&to) => {
            Ok((from, to))
        }
        (Some(from), Some(to)) => Err(ApiError::invalid_value(
            "port range",
            format!("{from} to {to}"),
            "Expecting ports from 0 to 65535, the first not after the last; all ports are 0 to 65535.",
        )),
        _ => Err(ApiError::new(
            ErrorCode::InvalidParameterValue,
            format!("The protocol {protocol} needs both FromPort and ToPort."),
        )),
    }
}

fn icmp(given: (Option<i64>, Option<i64>)) -> Result<(i64, i64), ApiError> {
    let (kind, code) = (given.0.unwrap_or(ALL), given.1.unwrap_or(ALL));
    let fits = (ALL..=255).contains(&kind) && (ALL..=255).contains(&code);
    if fits && (kind != ALL || code == ALL) {
        return Ok((kind, code));
    }
    Err(ApiError::invalid_value(
        "ICMP type and code",
        format!("{kind}, {code}"),
        "Expecting 0 to 255, or -1 for all; a code needs a type.",
    ))
}

/// As EC2 does: host bits are dropped, a missing length is an error.
fn cidr(text: &str) -> Result<Ipv4Net, ApiError> {
    let net: Ipv4Net = text.parse().map_err(|_| malformed(text))?;
    Ok(net.trunc())
}

fn malformed(cidr: &str) -> ApiError {
    ApiError::new(
        ErrorCode::InvalidParameterValue,
        format!(
            "CIDR block {cidr} is malformed. One looks like 203.0.113.0/24, a single address like 203.0.113.5/32."
        ),
    )
}

pub(super) fn check_description(text: &str) -> Result<(), ApiError> {
    if text.chars().count() > 255 || text.chars().any(char::is_control) {
        return Err(ApiError::invalid_value(
            "Description",
            text,
            "Expecting up to 255 characters in one line.",
        ));
    }
    Ok(())
}

fn protocol_name(protocol: i64) -> String {
    match protocol {
        TCP => "tcp".into(),
        UDP => "udp".into(),
        ICMP => "icmp".into(),
        other => other.to_string(),
    }
}

fn port(n: i64) -> i32 {
    i32::try_from(n).unwrap_or(-1)
}

/// A rule as its own resource.
pub(super) fn rule(row: &RuleRow) -> SecurityGroupRule {
    SecurityGroupRule {
        security_group_rule_id: row.id.clone(),
        group_id: row.group_id.clone(),
        group_owner_id: row.account_id.clone(),
        is_egress: row.is_egress,
        ip_protocol: protocol_name(row.protocol),
        from_port: port(row.from_port),
        to_port: port(row.to_port),
        cidr_ipv4: row.cidr.clone(),
        referenced_group_info: row
            .referenced_group_id
            .as_ref()
            .map(|group| ReferencedSecurityGroup {
                group_id: group.clone(),
                user_id: row.account_id.clone(),
            }),
        description: row.description.clone(),
        tags: tell_tags(&row.tags),
    }
}

/// A rule that is no more.
pub(super) fn revoked(row: &RuleRow) -> RevokedSecurityGroupRule {
    RevokedSecurityGroupRule {
        security_group_rule_id: row.id.clone(),
        group_id: row.group_id.clone(),
        is_egress: row.is_egress,
        ip_protocol: protocol_name(row.protocol),
        from_port: port(row.from_port),
        to_port: port(row.to_port),
        cidr_ipv4: row.cidr.clone(),
        referenced_group_id: row.referenced_group_id.clone().unwrap_or_default(),
        description: row.description.clone(),
    }
}

/// Rules of one direction put together: one permission per traffic, as EC2 tells them. `account` owns the groups.
pub(super) fn permissions<'r>(rows: impl Iterator<Item = &'r RuleRow>, account: &str) -> Vec<IpPermission> {
    let mut by_traffic: BTreeMap<Traffic, IpPermission> = BTreeMap::new();
    for row in rows {
        let traffic = Traffic {
            protocol: row.protocol,
            from: row.from_port,
            to: row.to_port,
        };
        let has_ports = [TCP, UDP, ICMP].contains(&row.protocol);
        let permission = by_traffic.entry(traffic).or_insert_with(|| IpPermission {
            ip_protocol: protocol_name(row.protocol),
            from_port: has_ports.then(|| port(row.from_port)),
            to_port: has_ports.then(|| port(row.to_port)),
            ..IpPermission::default()
        });
        match &row.referenced_group_id {
            Some(group) => permission.user_id_group_pairs.push(UserIdGroupPair {
                group_id: group.clone(),
                group_name: String::new(),
                description: row.description.clone(),
                user_id: account.to_owned(),
            }),
            None => permission.ip_ranges.push(IpRange {
                cidr_ip: row.cidr.clone(),
                description: row.description.clone(),
            }),
        }
    }
    by_traffic.into_values().collect()
}

#[cfg(test)]
mod tests;
