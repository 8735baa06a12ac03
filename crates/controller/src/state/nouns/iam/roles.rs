//! Roles: permissions that others assume for a while.

use serde::{Deserialize, Serialize};

use super::{Bearer as _, Entity as _, Grants, bearer, entity};
use crate::state::noun::owned;
use crate::state::{Index, Noun, Tags};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// `AROA...`.
    pub id: String,
    pub account_id: String,
    pub name: String,
    pub path: String,
    pub description: String,
    /// Who may assume it: a policy's JSON.
    pub trust: String,
    /// The longest session in seconds.
    pub max_session: i32,
    pub created_at: i64,
    pub grants: Grants,
    pub tags: Tags,
}

impl Noun for Role {
    const KIND: &'static str = "role";
    const INDEXES: &'static [Index<Self>] = &[Self::BY_NAME, Self::BY_POLICY, Self::BY_BOUNDARY];

    owned!();
}

entity!(Role, "role", "role", "AROA", ("RolesPerAccount", 1000));
bearer!(Role);
