//! Security groups and their rules.

use hearth_api::{ErrorCode, Kind};
use serde::{Deserialize, Serialize};

use super::Vpc;
use crate::state::noun::resource;
use crate::state::{Bound, Concern, Index, Noun, Scope, State, Tags, key};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroup {
    pub id: String,
    pub account_id: String,
    #[serde(default)]
    pub region: String,
    pub vpc_id: String,
    pub name: String,
    pub description: String,
    pub created_at: i64,
    pub tags: Tags,
}

impl SecurityGroup {
    /// By the folded name. Databases of older versions may have several of one.
    pub const BY_NAME: Index<Self> = Index::new("name", |g| vec![key(&[&g.vpc_id, &folded(&g.name)])]);

    pub const BY_VPC: Index<Self> = Index::refers::<Vpc>("vpc", |g| vec![g.vpc_id.clone()]);

    /// The account and region that it is in.
    pub fn scope(&self) -> Scope {
        Scope::new(&self.account_id, &self.region)
    }
}

/// A name as names are compared: without trailing spaces, in lower case.
/// <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateSecurityGroup.html>
pub fn folded(name: &str) -> String {
    name.trim_end_matches(' ').to_ascii_lowercase()
}

impl Noun for SecurityGroup {
    const KIND: &'static str = "security-group";
    const RESOURCE: Option<Kind> = Some(Kind::SecurityGroup);
    const INDEXES: &'static [Index<Self>] = &[Self::BY_NAME, Self::BY_VPC];
    /// <https://docs.aws.amazon.com/vpc/latest/userguide/amazon-vpc-limits.html>
    const BOUND: Option<Bound> = Some(Bound::new(
        2500,
        "security groups",
        ErrorCode::SecurityGroupLimitExceeded,
    ));

    resource!();
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroupRule {
    pub id: String,
    pub account_id: String,
    #[serde(default)]
    pub region: String,
    pub group_id: String,
    pub is_egress: bool,
    /// IP protocol number, -1 for all.
    pub protocol: i64,
    /// First port or ICMP type, -1 for all.
    pub from_port: i64,
    /// Last port or ICMP code, -1 for all.
    pub to_port: i64,
    /// Empty when `referenced_group_id` is the peer.
    pub cidr: String,
    pub referenced_group_id: Option<String>,
    pub description: String,
    pub created_at: i64,
    pub tags: Tags,
}

impl SecurityGroupRule {
    pub const BY_GROUP: Index<Self> = Index::owned::<SecurityGroup>("group", |r| vec![r.group_id.clone()]);
    pub const BY_REFERENCED: Index<Self> = Index::refers::<SecurityGroup>("referenced-group", |r| {
        r.referenced_group_id.iter().cloned().collect()
    });
}

impl Noun for SecurityGroupRule {
    const KIND: &'static str = "security-group-rule";
    const RESOURCE: Option<Kind> = Some(Kind::SecurityGroupRule);
    const INDEXES: &'static [Index<Self>] = &[Self::BY_GROUP, Self::BY_REFERENCED];

    fn concerns(&self, _: &State) -> Vec<Concern> {
        vec![Concern::Rules {
            group_id: self.group_id.clone(),
        }]
    }

    resource!();
}

impl State {
    /// Upper and lower case and trailing spaces make no difference. Of several, which older databases may have, the one
    /// with exactly this name.
    pub fn group_named(&self, vpc_id: &str, name: &str) -> Option<&SecurityGroup> {
        let key = key(&[vpc_id, &folded(name)]);
        self.by(&SecurityGroup::BY_NAME, &key)
            .find(|group| group.name == name)
            .or_else(|| self.first_by(&SecurityGroup::BY_NAME, &key))
    }

    /// The rules of a group, the oldest first.
    pub fn rules_of(&self, group_id: &str) -> Vec<&SecurityGroupRule> {
        let mut rules: Vec<_> = self.by(&SecurityGroupRule::BY_GROUP, group_id).collect();
        rules.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        rules
    }
}
