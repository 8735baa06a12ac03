//! Users: people and programs with access keys of their own.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Bearer as _, Entity as _, Grants, Group, bearer, entity};
use crate::state::noun::owned;
use crate::state::{Index, Noun, Tags};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// `AIDA...`.
    pub id: String,
    pub account_id: String,
    pub name: String,
    pub path: String,
    pub created_at: i64,
    pub grants: Grants,
    /// Ids of groups.
    pub groups: BTreeSet<String>,
    pub tags: Tags,
}

impl User {
    pub const BY_GROUP: Index<Self> =
        Index::refers::<Group>("group", |user| user.groups.iter().cloned().collect());
}

impl Noun for User {
    const KIND: &'static str = "user";
    const INDEXES: &'static [Index<Self>] =
        &[Self::BY_NAME, Self::BY_POLICY, Self::BY_BOUNDARY, Self::BY_GROUP];

    owned!();
}

entity!(User, "user", "user", "AIDA", ("UsersPerAccount", 5000));
bearer!(User);
