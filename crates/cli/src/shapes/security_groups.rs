//! Security groups and their rules.

use hearth_api::v1;
use serde::Serialize;

use super::{Done, Tag, table, tags};
use crate::output::Answer;

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct GroupIdentifier {
    group_id: String,
    group_name: String,
}

impl From<v1::GroupIdentifier> for GroupIdentifier {
    fn from(group: v1::GroupIdentifier) -> Self {
        Self {
            group_id: group.group_id,
            group_name: group.group_name,
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct SecurityGroups {
    security_groups: Vec<SecurityGroup>,
    #[serde(skip_serializing_if = "String::is_empty")]
    next_token: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct SecurityGroup {
    group_id: String,
    ip_permissions_egress: Vec<IpPermission>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<Tag>,
    vpc_id: String,
    owner_id: String,
    group_name: String,
    description: String,
    ip_permissions: Vec<IpPermission>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct IpPermission {
    ip_protocol: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_port: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to_port: Option<i32>,
    user_id_group_pairs: Vec<UserIdGroupPair>,
    ip_ranges: Vec<IpRange>,
    ipv6_ranges: [(); 0],
    prefix_list_ids: [(); 0],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct UserIdGroupPair {
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    user_id: String,
    group_id: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct IpRange {
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    cidr_ip: String,
}

impl From<v1::DescribeSecurityGroupsResponse> for SecurityGroups {
    fn from(answer: v1::DescribeSecurityGroupsResponse) -> Self {
        Self {
            security_groups: answer
                .security_groups
                .into_iter()
                .map(SecurityGroup::from)
                .collect(),
            next_token: answer.next_token,
        }
    }
}

impl From<v1::SecurityGroup> for SecurityGroup {
    fn from(group: v1::SecurityGroup) -> Self {
        let permissions =
            |permissions: Vec<v1::IpPermission>| permissions.into_iter().map(IpPermission::from).collect();
        Self {
            ip_permissions_egress: permissions(group.ip_permissions_egress),
            ip_permissions: permissions(group.ip_permissions),
            group_id: group.group_id,
            tags: tags(group.tags),
            vpc_id: group.vpc_id,
            owner_id: group.owner_id,
            group_name: group.group_name,
            description: group.description,
        }
    }
}

impl From<v1::IpPermission> for IpPermission {
    fn from(permission: v1::IpPermission) -> Self {
        let pair = |p: v1::UserIdGroupPair| UserIdGroupPair {
            description: p.description,
            user_id: p.user_id,
            group_id: p.group_id,
        };
        Self {
            ip_protocol: permission.ip_protocol,
            from_port: permission.from_port,
            to_port: permission.to_port,
            user_id_group_pairs: permission.user_id_group_pairs.into_iter().map(pair).collect(),
            ip_ranges: permission
                .ip_ranges
                .into_iter()
                .map(|r| IpRange {
                    description: r.description,
                    cidr_ip: r.cidr_ip,
                })
                .collect(),
            ipv6_ranges: [],
            prefix_list_ids: [],
        }
    }
}

impl IpPermission {
    /// One line per peer, such as `tcp 22 0.0.0.0/0`.
    fn lines(&self) -> impl Iterator<Item = String> {
        let what = traffic(&self.ip_protocol, self.from_port, self.to_port);
        let cidrs = self.ip_ranges.iter().map(|r| r.cidr_ip.as_str());
        let groups = self.user_id_group_pairs.iter().map(|p| p.group_id.as_str());
        cidrs.chain(groups).map(move |peer| format!("{what} {peer}"))
    }
}

/// What a rule admits, for people: `tcp 22`, `udp 5000-5010`, `all`; `icmp 8` for all codes of a type, `icmp 3-4` for
/// one code.
fn traffic(protocol: &str, from: Option<i32>, to: Option<i32>) -> String {
    match (protocol, from, to) {
        ("-1", ..) => "all".to_owned(),
        // All ports or types.
        (_, None | Some(-1), _) => protocol.to_owned(),
        ("icmp", Some(kind), Some(code)) if code != -1 => format!("icmp {kind}-{code}"),
        (_, Some(from), Some(to)) if from != to && to != -1 => format!("{protocol} {from}-{to}"),
        (_, Some(from), _) => format!("{protocol} {from}"),
    }
}

impl Answer for SecurityGroups {
    fn table(&self) -> String {
        let lines = |permissions: &[IpPermission]| {
            permissions
                .iter()
                .flat_map(IpPermission::lines)
                .collect::<Vec<_>>()
                .join("\n")
        };
        let row = |g: &SecurityGroup| {
            [
                g.group_name.clone(),
                g.group_id.clone(),
                lines(&g.ip_permissions),
                lines(&g.ip_permissions_egress),
                g.vpc_id.clone(),
                g.description.clone(),
            ]
        };
        let head = ["Name", "Group", "Ingress", "Egress", "VPC", "Description"];
        table::of_rows(
            head,
            self.security_groups.iter().map(row).collect(),
            "No security groups.",
        )
    }
}

/// The answer of `CreateSecurityGroup`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct NewGroup {
    pub(crate) group_id: String,
}

impl Answer for NewGroup {
    fn table(&self) -> String {
        self.group_id.clone()
    }
}

/// The answers of the authorize and revoke calls.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Rules {
    #[serde(flatten)]
    done: Done,
    #[serde(skip_serializing_if = "Option::is_none")]
    security_group_rules: Option<Vec<Rule>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked_security_group_rules: Option<Vec<Rule>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unknown_ip_permissions: Vec<IpPermission>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Rule {
    security_group_rule_id: String,
    group_id: String,
    is_egress: bool,
    ip_protocol: String,
    from_port: i32,
    to_port: i32,
    #[serde(skip_serializing_if = "String::is_empty")]
    cidr_ipv4: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    referenced_group_info: Option<ReferencedGroup>,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ReferencedGroup {
    group_id: String,
}

impl Rules {
    pub(crate) fn authorized(answer: v1::SecurityGroupRulesResponse) -> Self {
        let rules = answer.security_group_rules.into_iter().map(Rule::from).collect();
        Self {
            done: Done::new(""),
            security_group_rules: Some(rules),
            revoked_security_group_rules: None,
            unknown_ip_permissions: Vec::new(),
        }
    }

    pub(crate) fn revoked(answer: v1::RevokeSecurityGroupRulesResponse) -> Self {
        let rules = answer.revoked_security_group_rules.into_iter();
        let unknown = answer.unknown_ip_permissions.into_iter();
        Self {
            done: Done::new(""),
            security_group_rules: None,
            revoked_security_group_rules: Some(rules.map(Rule::from).collect()),
            unknown_ip_permissions: unknown.map(IpPermission::from).collect(),
        }
    }
}

impl From<v1::SecurityGroupRule> for Rule {
    fn from(rule: v1::SecurityGroupRule) -> Self {
        let referenced = rule.referenced_group_id;
        Self {
            security_group_rule_id: rule.security_group_rule_id,
            group_id: rule.group_id,
            is_egress: rule.is_egress,
            ip_protocol: rule.ip_protocol,
            from_port: rule.from_port,
            to_port: rule.to_port,
            cidr_ipv4: rule.cidr_ipv4,
            referenced_group_info: (!referenced.is_empty())
                .then_some(ReferencedGroup { group_id: referenced }),
            description: rule.description,
        }
    }
}

impl Answer for Rules {
    fn table(&self) -> String {
        let rules = self
            .security_group_rules
            .iter()
            .chain(&self.revoked_security_group_rules)
            .flatten();
        let row = |r: &Rule| {
            let peer = r
                .referenced_group_info
                .as_ref()
                .map_or(&r.cidr_ipv4, |group| &group.group_id);
            [
                r.security_group_rule_id.clone(),
                r.group_id.clone(),
                if r.is_egress { "egress" } else { "ingress" }.to_owned(),
                traffic(&r.ip_protocol, Some(r.from_port), Some(r.to_port)),
                peer.clone(),
                r.description.clone(),
            ]
        };
        let head = ["Rule", "Group", "Direction", "Traffic", "Peer", "Description"];
        let mut told = table::of_rows(head, rules.map(row).collect(), "No rules.");
        for line in self.unknown_ip_permissions.iter().flat_map(IpPermission::lines) {
            told.push_str("\nNot a rule of this group: ");
            told.push_str(&line);
        }
        told
    }
}
