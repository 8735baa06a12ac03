//! Placement groups, which say how instances stand to each other.

use hearth_api::{ErrorCode, InstanceState, Kind, v1};
use serde::{Deserialize, Serialize};

use super::Instance;
use crate::state::noun::{regional, resource};
use crate::state::{Bound, Index, Noun, Scope, State, Tags, key};

/// Hosts are shared.
pub const DEFAULT_TENANCY: &str = "default";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementGroup {
    pub id: String,
    pub account_id: String,
    #[serde(default)]
    pub region: String,
    pub name: String,
    pub strategy: Strategy,
    pub created_at: i64,
    pub tags: Tags,
}

/// How the instances of a group stand to each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    Cluster,
    /// `rack` or `host`.
    Spread {
        level: String,
    },
    Partition {
        count: u32,
    },
}

impl PlacementGroup {
    pub const BY_NAME: Index<Self> =
        Index::unique("name", |g| vec![key(&[&g.account_id, &g.region, &g.name])]);
}

impl Noun for PlacementGroup {
    const KIND: &'static str = "placement-group";
    const RESOURCE: Option<Kind> = Some(Kind::PlacementGroup);
    const INDEXES: &'static [Index<Self>] = &[Self::BY_NAME];
    /// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/placement-groups.html>
    const BOUND: Option<Bound> = Some(Bound::new(
        500,
        "placement groups",
        ErrorCode::ResourceLimitExceeded,
    ));

    resource!();
}

/// That an instance is in a placement group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementGroupMember {
    pub instance_id: String,
    pub account_id: String,
    #[serde(default)]
    pub region: String,
    pub group_id: String,
    /// 0 unless the strategy is `partition`.
    pub partition: u32,
}

impl PlacementGroupMember {
    pub const BY_GROUP: Index<Self> = Index::refers::<PlacementGroup>("group", |m| vec![m.group_id.clone()]);
}

impl Noun for PlacementGroupMember {
    const KIND: &'static str = "placement-group-member";
    const INDEXES: &'static [Index<Self>] = &[
        Self::BY_GROUP,
        Index::owned::<Instance>("instance", |m| vec![m.instance_id.clone()]),
    ];

    fn id(&self) -> &str {
        &self.instance_id
    }

    fn account(&self) -> &str {
        &self.account_id
    }

    regional!();
}

impl State {
    /// Where an instance is, as the API tells it.
    pub fn placement_of(&self, row: &Instance) -> v1::Placement {
        let member = self.get::<PlacementGroupMember>(&row.id);
        let group = member.and_then(|member| self.get::<PlacementGroup>(&member.group_id));
        let (group_name, group_id) = group
            .map(|group| (group.name.clone(), group.id.clone()))
            .unwrap_or_default();
        v1::Placement {
            availability_zone: row.availability_zone.clone(),
            availability_zone_id: hearth_api::zones::id(&row.availability_zone),
            host_id: row.host_id.clone(),
            group_name,
            group_id,
            partition_number: member
                .filter(|member| member.partition > 0)
                .map(|member| member.partition.cast_signed()),
            tenancy: DEFAULT_TENANCY.to_owned(),
        }
    }

    pub fn placement_group_named(&self, of: &Scope, name: &str) -> Option<&PlacementGroup> {
        self.first_by(&PlacementGroup::BY_NAME, &of.key(&[name]))
    }

    /// The instances of a placement group that are not terminated, with their partitions.
    pub fn placed_in<'s>(&'s self, group_id: &str) -> impl Iterator<Item = (&'s Instance, u32)> + use<'s> {
        self.by(&PlacementGroupMember::BY_GROUP, group_id)
            .filter_map(|member| Some((self.get::<Instance>(&member.instance_id)?, member.partition)))
            .filter(|(instance, _)| instance.state != InstanceState::Terminated)
    }
}
