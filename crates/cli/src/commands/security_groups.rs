//! Security groups.

use clap::Args;
use hearth_api::v1;

use super::{DryRun, Filtering, Paging, Tagging};
use crate::context::Context;
use crate::error::CliError;
use crate::parameters;
use crate::shapes::Done;
use crate::shapes::security_groups::{NewGroup, Rules, SecurityGroups};

/// Makes a security group, which admits nothing in and everything out.
#[derive(Args)]
pub(super) struct CreateSecurityGroup {
    #[arg(long, value_name = "NAME")]
    group_name: String,
    #[arg(long, value_name = "TEXT")]
    description: String,
    /// Unless told, the default VPC.
    #[arg(long, value_name = "VPC", default_value = "", hide_default_value = true)]
    vpc_id: String,
    #[command(flatten)]
    tagging: Tagging,
    #[command(flatten)]
    dry_run: DryRun,
}

impl CreateSecurityGroup {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let request = v1::CreateSecurityGroupRequest {
            group_name: self.group_name,
            description: self.description,
            vpc_id: self.vpc_id,
            dry_run: self.dry_run.dry_run,
            tag_specifications: parameters::tag_specifications(&self.tagging.tag_specifications)?,
        };
        let answer = context
            .client()
            .await?
            .security_groups
            .create_security_group(request)
            .await;
        let group_id = context.answered("CreateSecurityGroup", answer)?.group_id;
        context.print(&NewGroup { group_id })
    }
}

/// Describes security groups and what they admit.
#[derive(Args)]
pub(super) struct DescribeSecurityGroups {
    #[arg(long, num_args = 1.., value_name = "GROUP")]
    group_ids: Vec<String>,
    #[arg(long, num_args = 1.., value_name = "NAME")]
    group_names: Vec<String>,
    #[command(flatten)]
    filtering: Filtering,
    #[command(flatten)]
    paging: Paging,
}

impl DescribeSecurityGroups {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let request = v1::DescribeSecurityGroupsRequest {
            group_ids: self.group_ids,
            group_names: self.group_names,
            filters: parameters::filters(&self.filtering.filters)?,
            max_results: self.paging.max_results,
            next_token: self.paging.next_token,
            dry_run: self.filtering.dry_run.dry_run,
        };
        let answer = context
            .client()
            .await?
            .security_groups
            .describe_security_groups(request)
            .await;
        context.print(&SecurityGroups::from(
            context.answered("DescribeSecurityGroups", answer)?,
        ))
    }
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Group {
    /// The id of the group.
    #[arg(long, value_name = "GROUP")]
    group_id: Option<String>,
    /// In place of the id, in the default VPC only.
    #[arg(long, value_name = "NAME")]
    group_name: Option<String>,
}

/// Deletes a security group that nothing uses.
#[derive(Args)]
pub(super) struct DeleteSecurityGroup {
    #[command(flatten)]
    group: Group,
    #[command(flatten)]
    dry_run: DryRun,
}

impl DeleteSecurityGroup {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let request = v1::DeleteSecurityGroupRequest {
            group_id: self.group.group_id.unwrap_or_default(),
            group_name: self.group.group_name.unwrap_or_default(),
            dry_run: self.dry_run.dry_run,
        };
        let answer = context
            .client()
            .await?
            .security_groups
            .delete_security_group(request)
            .await;
        context.answered("DeleteSecurityGroup", answer)?;
        context.print(&Done::new("Deleted."))
    }
}

#[derive(Args)]
struct Rule {
    /// tcp, udp, icmp, a protocol number, or all.
    #[arg(long, value_name = "PROTOCOL", conflicts_with = "ip_permissions")]
    protocol: Option<String>,
    /// For tcp and udp a port, a range such as 5000-5010, or all. For icmp a type with all its codes, TYPE-CODE, or
    /// all.
    #[arg(long, value_name = "PORT", requires = "protocol", allow_hyphen_values = true)]
    port: Option<String>,
    /// The other side: an IPv4 network.
    #[arg(long, value_name = "CIDR", requires = "protocol")]
    cidr: Option<String>,
    /// The other side: the members of a group, by its id or name.
    #[arg(long, value_name = "GROUP", requires = "protocol", conflicts_with = "cidr")]
    source_group: Option<String>,
    /// Any rules.
    #[arg(long, num_args = 1.., value_name = "IpProtocol=...,FromPort=...,ToPort=...,IpRanges=[{CidrIp=...}]")]
    ip_permissions: Vec<String>,
}

impl Rule {
    fn permissions(self) -> Result<Vec<v1::IpPermission>, CliError> {
        let Some(protocol) = self.protocol else {
            return parameters::ip_permissions(&self.ip_permissions);
        };
        let ports = self
            .port
            .as_deref()
            .map(|port| ports(&protocol, port))
            .transpose()?;
        let group = |group: String| match group.starts_with("sg-") {
            true => v1::UserIdGroupPair {
                group_id: group,
                ..Default::default()
            },
            false => v1::UserIdGroupPair {
                group_name: group,
                ..Default::default()
            },
        };
        let range = |cidr_ip| v1::IpRange {
            cidr_ip,
            description: String::new(),
        };
        Ok(vec![v1::IpPermission {
            ip_protocol: if protocol == "all" {
                "-1".to_owned()
            } else {
                protocol
            },
            from_port: ports.map(|(from, _)| from),
            to_port: ports.map(|(_, to)| to),
            ip_ranges: self.cidr.into_iter().map(range).collect(),
            user_id_group_pairs: self.source_group.into_iter().map(group).collect(),
        }])
    }
}

/// `FromPort` and `ToPort` for the `--port` of a protocol: ports, or ICMP's type and code.
fn ports(protocol: &str, text: &str) -> Result<(i32, i32), CliError> {
    let number = |text: &str| {
        text.parse::<i32>().map_err(|_| {
            let problem = format!("'{text}' is no number; a value is 22, 5000-5010, or all");
            CliError::parameter("--port", problem)
        })
    };
    match (text, text.split_once('-')) {
        ("all", _) if ["tcp", "udp", "6", "17"].contains(&protocol) => Ok((0, 65_535)),
        ("all" | "-1", _) => Ok((-1, -1)),
        (_, Some((from, to))) => Ok((number(from)?, number(to)?)),
        (kind, None) if ["icmp", "1"].contains(&protocol) => Ok((number(kind)?, -1)),
        (port, None) => number(port).map(|port| (port, port)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_a_range_and_an_icmp_type_has_all_its_codes() {
        for (protocol, port, expected) in [
            ("tcp", "22", (22, 22)),
            ("udp", "5000-5010", (5000, 5010)),
            ("tcp", "all", (0, 65_535)),
            ("6", "all", (0, 65_535)),
            // For hearthd to refuse.
            ("tcp", "-1", (-1, -1)),
            ("icmp", "8", (8, -1)),
            ("1", "8", (8, -1)),
            ("icmp", "3-4", (3, 4)),
            ("icmp", "all", (-1, -1)),
            ("icmp", "-1", (-1, -1)),
            ("-1", "all", (-1, -1)),
        ] {
            assert_eq!(ports(protocol, port).unwrap(), expected, "{protocol} {port}");
        }
        assert!(ports("tcp", "ssh").is_err());
    }
}

#[derive(Args)]
struct Authorize {
    #[command(flatten)]
    group: Group,
    #[command(flatten)]
    rule: Rule,
    #[command(flatten)]
    dry_run: DryRun,
}

impl Authorize {
    fn request(self) -> Result<v1::SecurityGroupRulesRequest, CliError> {
        Ok(v1::SecurityGroupRulesRequest {
            group_id: self.group.group_id.unwrap_or_default(),
            group_name: self.group.group_name.unwrap_or_default(),
            ip_permissions: self.rule.permissions()?,
            security_group_rule_ids: Vec::new(),
            dry_run: self.dry_run.dry_run,
        })
    }
}

#[derive(Args)]
struct Revoke {
    #[command(flatten)]
    authorize: Authorize,
    /// In place of the rules themselves.
    #[arg(long, num_args = 1.., value_name = "RULE", conflicts_with_all = ["protocol", "ip_permissions"])]
    security_group_rule_ids: Vec<String>,
}

impl Revoke {
    fn request(self) -> Result<v1::SecurityGroupRulesRequest, CliError> {
        let security_group_rule_ids = self.security_group_rule_ids;
        Ok(v1::SecurityGroupRulesRequest {
            security_group_rule_ids,
            ..self.authorize.request()?
        })
    }
}

macro_rules! rules_command {
    ($name:ident, $arguments:ty, $method:ident, $shape:path, $sentence:literal) => {
        #[doc = $sentence]
        #[derive(Args)]
        pub(super) struct $name {
            #[command(flatten)]
            arguments: $arguments,
        }

        impl $name {
            pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
                let request = self.arguments.request()?;
                let answer = context
                    .client()
                    .await?
                    .security_groups
                    .$method(request)
                    .await;
                context.print(&$shape(context.answered(stringify!($name), answer)?))
            }
        }
    };
}

rules_command!(
    AuthorizeSecurityGroupIngress,
    Authorize,
    authorize_security_group_ingress,
    Rules::authorized,
    "Admits traffic to the members of a group."
);
rules_command!(
    AuthorizeSecurityGroupEgress,
    Authorize,
    authorize_security_group_egress,
    Rules::authorized,
    "Admits traffic from the members of a group."
);
rules_command!(
    RevokeSecurityGroupIngress,
    Revoke,
    revoke_security_group_ingress,
    Rules::revoked,
    "No longer admits traffic to the members of a group."
);
rules_command!(
    RevokeSecurityGroupEgress,
    Revoke,
    revoke_security_group_egress,
    Rules::revoked,
    "No longer admits traffic from the members of a group."
);
