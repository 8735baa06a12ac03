//! Managed policies of an account. Those that every account has are in [`crate::iam::managed`].

use serde::{Deserialize, Serialize};

use super::{Entity as _, entity};
use crate::state::noun::owned;
use crate::state::{Index, Noun, Tags};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// `ANPA...`.
    pub id: String,
    pub account_id: String,
    pub name: String,
    pub path: String,
    pub description: String,
    /// The oldest first. There is at least one.
    pub versions: Vec<PolicyVersion>,
    /// The number of the version that holds.
    pub default_version: u32,
    /// Versions that there have been.
    pub counted: u32,
    pub created_at: i64,
    pub updated_at: i64,
    pub tags: Tags,
}

/// `v1` and so on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyVersion {
    pub number: u32,
    /// JSON.
    pub document: String,
    pub created_at: i64,
}

impl Policy {
    /// What the version that holds says.
    pub fn document(&self) -> &str {
        let holds = self.versions.iter().find(|v| v.number == self.default_version);
        holds.map_or("", |version| &version.document)
    }
}

impl Noun for Policy {
    const KIND: &'static str = "policy";
    const INDEXES: &'static [Index<Self>] = &[Self::BY_NAME];

    owned!();
}

entity!(Policy, "policy", "policy", "ANPA", ("PoliciesPerAccount", 1500));
