//! Instance profiles: what gives a role to instances.

use serde::{Deserialize, Serialize};

use super::{Entity as _, Role, entity};
use crate::state::noun::owned;
use crate::state::{Concern, Index, Instance, Noun, State, Tags};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceProfile {
    /// `AIPA...`.
    pub id: String,
    pub account_id: String,
    pub name: String,
    pub path: String,
    /// The role's id.
    pub role_id: Option<String>,
    pub created_at: i64,
    pub tags: Tags,
}

impl InstanceProfile {
    pub const BY_ROLE: Index<Self> =
        Index::refers::<Role>("role", |profile| profile.role_id.iter().cloned().collect());
}

impl Noun for InstanceProfile {
    const KIND: &'static str = "instance-profile";
    const INDEXES: &'static [Index<Self>] = &[Self::BY_NAME, Self::BY_ROLE];

    /// Its instances' hosts fetch credentials of its role.
    fn concerns(&self, state: &State) -> Vec<Concern> {
        let instances = state.by(&Instance::BY_PROFILE, &self.id);
        instances.flat_map(|instance| instance.concerns(state)).collect()
    }

    owned!();
}

entity!(
    InstanceProfile,
    "instance-profile",
    "instance profile",
    "AIPA",
    ("InstanceProfilesPerAccount", 1000)
);
