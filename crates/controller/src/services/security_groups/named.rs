//! The requests of the four calls that change a group's rules, as one.

use hearth_api::v1::{
    AuthorizeSecurityGroupEgressRequest, AuthorizeSecurityGroupIngressRequest, IpPermission, IpRange,
    RevokeSecurityGroupEgressRequest, RevokeSecurityGroupIngressRequest, Tag, TagSpecification,
    UserIdGroupPair,
};
use hearth_api::{ApiError, Kind};

use crate::services::input;
use crate::state::SecurityGroupRule;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    pub(super) fn of(rule: &SecurityGroupRule) -> Self {
        match rule.is_egress {
            true => Self::Egress,
            false => Self::Ingress,
        }
    }
}

/// What the four calls have in common: a group, and rules of it.
#[derive(Debug)]
pub(super) struct Named {
    pub direction: Direction,
    pub group_id: String,
    /// In place of the id, in the default VPC only.
    pub group_name: String,
    pub permissions: Vec<IpPermission>,
    /// In place of the permissions.
    pub rule_ids: Vec<String>,
    pub tags: Vec<Tag>,
}

/// One rule, said without a permission.
#[derive(Debug)]
struct Single {
    protocol: String,
    from_port: Option<i32>,
    to_port: Option<i32>,
    cidr: String,
    /// A group's name, and its owner.
    source: (String, String),
}

impl Single {
    /// The permissions of a request; the single rule, if it says one, is one more.
    fn beside(self, mut permissions: Vec<IpPermission>) -> Vec<IpPermission> {
        let (group_name, user_id) = self.source;
        if self.protocol.is_empty() && self.cidr.is_empty() && group_name.is_empty() {
            return permissions;
        }
        let range = |cidr_ip| IpRange {
            cidr_ip,
            description: String::new(),
        };
        let pair = |group_name| UserIdGroupPair {
            group_name,
            user_id,
            ..UserIdGroupPair::default()
        };
        let named = |text: String| (!text.is_empty()).then_some(text);
        permissions.push(IpPermission {
            // A group alone stands for all of its traffic.
            ip_protocol: named(self.protocol).unwrap_or_else(|| match group_name.is_empty() {
                true => String::new(),
                false => "-1".to_owned(),
            }),
            from_port: self.from_port,
            to_port: self.to_port,
            ip_ranges: named(self.cidr).map(range).into_iter().collect(),
            user_id_group_pairs: named(group_name).map(pair).into_iter().collect(),
            ..IpPermission::default()
        });
        permissions
    }
}

fn tags(specifications: &[TagSpecification]) -> Result<Vec<Tag>, ApiError> {
    input::tags_for(
        specifications,
        &[Kind::SecurityGroupRule],
        Kind::SecurityGroupRule,
    )
}

/// What all four requests have in common. Only ingress can name groups by their names.
macro_rules! named {
    ($request:ident, $direction:ident, $group_name:expr, $source:expr) => {{
        let single = Single {
            protocol: $request.ip_protocol,
            from_port: $request.from_port,
            to_port: $request.to_port,
            cidr: $request.cidr_ip,
            source: $source,
        };
        Self {
            direction: Direction::$direction,
            group_id: $request.group_id,
            group_name: $group_name,
            permissions: single.beside($request.ip_permissions),
            rule_ids: Vec::new(),
            tags: Vec::new(),
        }
    }};
    ($request:ident, Ingress) => {
        named!(
            $request,
            Ingress,
            $request.group_name,
            (
                $request.source_security_group_name,
                $request.source_security_group_owner_id
            )
        )
    };
    ($request:ident, Egress) => {
        named!($request, Egress, String::new(), (String::new(), String::new()))
    };
}

impl TryFrom<AuthorizeSecurityGroupIngressRequest> for Named {
    type Error = ApiError;

    fn try_from(request: AuthorizeSecurityGroupIngressRequest) -> Result<Self, ApiError> {
        let tags = tags(&request.tag_specifications)?;
        Ok(Self {
            tags,
            ..named!(request, Ingress)
        })
    }
}

impl TryFrom<AuthorizeSecurityGroupEgressRequest> for Named {
    type Error = ApiError;

    fn try_from(request: AuthorizeSecurityGroupEgressRequest) -> Result<Self, ApiError> {
        let tags = tags(&request.tag_specifications)?;
        Ok(Self {
            tags,
            ..named!(request, Egress)
        })
    }
}

impl From<RevokeSecurityGroupIngressRequest> for Named {
    fn from(request: RevokeSecurityGroupIngressRequest) -> Self {
        Self {
            rule_ids: request.security_group_rule_ids,
            ..named!(request, Ingress)
        }
    }
}

impl From<RevokeSecurityGroupEgressRequest> for Named {
    fn from(request: RevokeSecurityGroupEgressRequest) -> Self {
        Self {
            rule_ids: request.security_group_rule_ids,
            ..named!(request, Egress)
        }
    }
}
