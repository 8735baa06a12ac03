//! Access keys: what requests are signed with.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::User;
use crate::state::{Index, Noun};

/// A key of a user, or of an account's root user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessKey {
    /// `AKIA` and 16 letters and digits of base 32, as some clients check it.
    pub id: String,
    pub account_id: String,
    /// The user's id; `None`: the root user's.
    #[serde(default)]
    pub user_id: Option<String>,
    pub secret: Secret,
    /// Whether nothing may be signed with it.
    #[serde(default)]
    pub is_inactive: bool,
    pub created_at: i64,
}

/// What nobody but its owner may read.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl AccessKey {
    /// Keys of an account's root user.
    pub const BY_ACCOUNT: Index<Self> = Index::new("account", |key| match key.user_id {
        None => vec![key.account_id.clone()],
        Some(_) => Vec::new(),
    });
    pub const BY_USER: Index<Self> =
        Index::refers::<User>("user", |key| key.user_id.iter().cloned().collect());

    pub fn generate(account_id: &str, user_id: Option<&str>, now: i64) -> Self {
        Self {
            id: format!("AKIA{}", base32::<16>()),
            account_id: account_id.to_owned(),
            user_id: user_id.map(str::to_owned),
            secret: Secret::generate(),
            is_inactive: false,
            created_at: now,
        }
    }
}

impl Secret {
    /// 240 bits in 40 characters, as AWS's are.
    pub fn generate() -> Self {
        Self(base64::Engine::encode(
            &base64::prelude::BASE64_STANDARD,
            rand::random::<[u8; 30]>(),
        ))
    }
}

/// Random letters and digits, as ids of AWS's are made of them.
pub fn base32<const N: usize>() -> String {
    const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    rand::random::<[u8; N]>()
        .iter()
        .map(|byte| char::from(BASE32[usize::from(byte % 32)]))
        .collect()
}

impl Noun for AccessKey {
    const KIND: &'static str = "access-key";
    const INDEXES: &'static [Index<Self>] = &[Self::BY_ACCOUNT, Self::BY_USER];

    fn id(&self) -> &str {
        &self.id
    }

    fn account(&self) -> &str {
        &self.account_id
    }
}
