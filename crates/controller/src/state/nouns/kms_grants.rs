//! Grants of KMS: what else lets somebody use a key, beside its policy.

use std::collections::BTreeMap;

use hearth_api::ErrorCode;
use serde::{Deserialize, Serialize};

use super::KmsKey;
use crate::state::noun::regional;
use crate::state::{Bound, Index, Noun, State, key};

/// <https://docs.aws.amazon.com/kms/latest/APIReference/API_GrantListEntry.html>
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KmsGrant {
    /// 64 hex digits.
    pub id: String,
    /// Of the key.
    pub account_id: String,
    pub region: String,
    pub key_id: String,
    /// Empty: it has none.
    pub name: String,
    /// An ARN.
    pub grantee: String,
    /// Who may retire it, as the grantee is named; empty: its grantee, if that is one of its operations, and the key's account.
    pub retiring: String,
    /// Such as `Decrypt`, sorted.
    pub operations: Vec<String>,
    pub constraints: Constraints,
    /// Of whoever made it.
    pub issuing_account: String,
    /// Stands for the grant where it is retired.
    pub token: String,
    /// Milliseconds since the epoch.
    pub created_at: i64,
}

/// Pairs that an encryption context must have for the grant to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Constraints {
    /// Among others.
    pub subset: BTreeMap<String, String>,
    /// And no others.
    pub equals: BTreeMap<String, String>,
}

impl KmsGrant {
    pub const BY_KEY: Index<Self> = Index::owned::<KmsKey>("key", |g| vec![g.key_id.clone()]);
    pub const BY_TOKEN: Index<Self> = Index::unique("token", |g| vec![g.token.clone()]);
    /// By the key and the name, of those that have one.
    pub const BY_NAME: Index<Self> = Index::new("name", |g| {
        let named = Some(&g.name).filter(|name| !name.is_empty());
        named.map(|name| key(&[&g.key_id, name])).into_iter().collect()
    });

    /// The account of somebody whom an ARN names.
    fn account_of(arn: &str) -> &str {
        arn.split(':').nth(4).unwrap_or_default()
    }
}

impl Noun for KmsGrant {
    const KIND: &'static str = "kms-grant";
    const INDEXES: &'static [Index<Self>] = &[Self::BY_KEY, Self::BY_TOKEN, Self::BY_NAME];
    /// AWS has 50,000 for each key.
    const BOUND: Option<Bound> = Some(Bound::new(
        10_000,
        "KMS grants",
        ErrorCode::LimitExceededException,
    ));

    fn id(&self) -> &str {
        &self.id
    }

    fn account(&self) -> &str {
        &self.account_id
    }

    /// Whom it is for sees it.
    fn is_shared_with(&self, account_id: &str) -> bool {
        [&self.grantee, &self.retiring]
            .map(|named| Self::account_of(named))
            .contains(&account_id)
    }

    regional!();
}

impl State {
    /// The grants of a key that whom the state is read for sees.
    pub fn grants_of(&self, key_id: &str) -> impl Iterator<Item = &KmsGrant> {
        self.by(&KmsGrant::BY_KEY, key_id)
    }
}
