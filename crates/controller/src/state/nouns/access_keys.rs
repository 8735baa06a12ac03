//! Access keys: what requests are signed with.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::state::{Index, Noun};

/// A key of an account's root user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessKey {
    /// `AKIA` and 16 letters and digits of base 32, as some clients check it.
    pub id: String,
    pub account_id: String,
    pub secret: Secret,
    pub created_at: i64,
}

/// What nobody but its owner may read.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl AccessKey {
    pub const BY_ACCOUNT: Index<Self> = Index::new("account", |key| vec![key.account_id.clone()]);

    pub fn generate(account_id: &str, now: i64) -> Self {
        const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
        let id: String = rand::random::<[u8; 16]>()
            .iter()
            .map(|byte| char::from(BASE32[usize::from(byte % 32)]))
            .collect();
        // 240 bits in 40 characters, as AWS's are.
        let secret = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, rand::random::<[u8; 30]>());
        Self {
            id: format!("AKIA{id}"),
            account_id: account_id.to_owned(),
            secret: Secret(secret),
            created_at: now,
        }
    }
}

impl Noun for AccessKey {
    const KIND: &'static str = "access-key";
    const INDEXES: &'static [Index<Self>] = &[Self::BY_ACCOUNT];

    fn id(&self) -> &str {
        &self.id
    }

    fn account(&self) -> &str {
        &self.account_id
    }
}
