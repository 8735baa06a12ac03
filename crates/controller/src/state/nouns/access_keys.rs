//! Access keys: what requests are signed with.

use serde::{Deserialize, Serialize};

use super::User;
use crate::seal::{Broken, SealedSecret, SealingKey, Secret};
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
    /// Sealed under the file's key ([`crate::vault`]), for this key alone.
    pub secret: SealedSecret,
    /// Whether nothing may be signed with it.
    #[serde(default)]
    pub is_inactive: bool,
    pub created_at: i64,
}

impl AccessKey {
    /// Keys of an account's root user.
    pub const BY_ACCOUNT: Index<Self> = Index::new("account", |key| match key.user_id {
        None => vec![key.account_id.clone()],
        Some(_) => Vec::new(),
    });
    pub const BY_USER: Index<Self> =
        Index::refers::<User>("user", |key| key.user_id.iter().cloned().collect());

    /// A new key, and its secret.
    ///
    /// # Errors
    /// As [`SealedSecret::seal`].
    pub fn generate(
        root: &SealingKey,
        account_id: &str,
        user_id: Option<&str>,
        now: i64,
    ) -> Result<(Self, Secret), Broken> {
        let id = format!("AKIA{}", base32::<16>());
        let secret = new_secret();
        let key = Self {
            secret: SealedSecret::seal(root, &purpose(&id), &secret)?,
            id,
            account_id: account_id.to_owned(),
            user_id: user_id.map(str::to_owned),
            is_inactive: false,
            created_at: now,
        };
        Ok((key, secret))
    }

    /// # Errors
    /// It was sealed under another key, or is another access key's.
    pub fn open(&self, root: &SealingKey) -> Result<Secret, Broken> {
        self.secret.open(root, &purpose(&self.id))
    }

    /// The key of a database of before seals, sealed; `None`: it is.
    ///
    /// # Errors
    /// As [`SealedSecret::seal`].
    pub fn sealed(&self, root: &SealingKey) -> Result<Option<Self>, Broken> {
        let Some(plain) = self.secret.plain() else {
            return Ok(None);
        };
        let secret = SealedSecret::seal(root, &purpose(&self.id), &plain)?;
        Ok(Some(Self {
            secret,
            ..self.clone()
        }))
    }
}

fn purpose(id: &str) -> String {
    format!("access-key/{id}")
}

/// A secret of an access key: 240 bits in 40 characters, as AWS's are.
pub fn new_secret() -> Secret {
    Secret(base64::Engine::encode(
        &base64::prelude::BASE64_STANDARD,
        rand::random::<[u8; 30]>(),
    ))
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
