//! Groups of users.

use serde::{Deserialize, Serialize};

use super::{Bearer as _, Entity as _, Grants, bearer, entity};
use crate::state::{Index, Noun};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// `AGPA...`.
    pub id: String,
    pub account_id: String,
    pub name: String,
    pub path: String,
    pub created_at: i64,
    pub grants: Grants,
}

impl Noun for Group {
    const KIND: &'static str = "group";
    const INDEXES: &'static [Index<Self>] = &[Self::BY_NAME, Self::BY_POLICY];

    fn id(&self) -> &str {
        &self.id
    }

    fn account(&self) -> &str {
        &self.account_id
    }
}

entity!(Group, "group", "group", "AGPA", ("GroupsPerAccount", 300));
bearer!(Group);
