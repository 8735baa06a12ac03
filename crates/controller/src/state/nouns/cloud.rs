//! The cloud itself, and what calls did under a ClientToken.

use hearth_api::ErrorCode;
use serde::{Deserialize, Serialize};

use crate::seal::{Broken, SealedSecret, SealingKey};
use crate::state::{Bound, Index, Noun, Scope, key};

/// What holds for the whole cloud. There is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cloud {
    /// The account of whoever runs the cloud: 12 digits.
    pub owner_id: String,
    /// The region that there always is; empty in a database of before regions.
    #[serde(default)]
    pub home_region: String,
    /// The epoch of the store: another one after a backup was restored, so that agents do not compare sequences with
    /// what they heard before.
    #[serde(default)]
    pub epoch: String,
    /// The key under which what callers keep for the cloud is sealed, such as session tokens ([`crate::vault`]).
    #[serde(default)]
    pub seal: SealedSecret,
}

impl Cloud {
    pub const ID: &str = "cloud";

    /// An epoch that there has never been.
    pub fn new_epoch() -> String {
        hex::encode(rand::random::<[u8; 8]>())
    }

    /// What [`Self::seal`] is sealed for.
    pub const SEAL: &str = "cloud/seal";

    /// A key that there has never been.
    ///
    /// # Errors
    /// As [`SealedSecret::seal`].
    pub fn new_seal(root: &SealingKey) -> Result<SealedSecret, Broken> {
        SealedSecret::seal(root, Self::SEAL, &SealingKey::generate())
    }
}

impl Noun for Cloud {
    const KIND: &'static str = "cloud";

    fn id(&self) -> &str {
        Self::ID
    }
}

/// What a call with a ClientToken did, so that it is not done again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientToken {
    /// [`ClientToken::id_of`].
    pub id: String,
    pub account_id: String,
    #[serde(default)]
    pub region: String,
    /// BLAKE3 of the normalised parameters, hex.
    pub parameters_hash: String,
    /// What the call made.
    pub resource_id: String,
    /// Milliseconds since the epoch.
    pub created_at: i64,
    /// When what the call made went out of sight. The token is kept for a while longer.
    #[serde(default)]
    pub outlived_at: Option<i64>,
}

impl ClientToken {
    pub const BY_RESOURCE: Index<Self> = Index::new("resource", |t| vec![t.resource_id.clone()]);

    /// Tokens are an account's own in a region, and each action has its own. Those of calls that name an availability zone are
    /// the zone's own; `zone` is empty otherwise (EC2 API Reference, "Ensuring idempotency").
    pub fn id_of(of: &Scope, action: &str, zone: &str, token: &str) -> String {
        of.key(&[action, zone, token])
    }
}

impl Noun for ClientToken {
    const KIND: &'static str = "client-token";
    const INDEXES: &'static [Index<Self>] = &[Self::BY_RESOURCE];
    const BOUND: Option<Bound> = Some(Bound {
        most: 20_000,
        what: "client tokens",
        code: ErrorCode::RequestLimitExceeded,
        remedy: "try again when those of a day ago are forgotten, or give none",
    });

    fn id(&self) -> &str {
        &self.id
    }

    fn account(&self) -> &str {
        &self.account_id
    }

    fn region(&self) -> &str {
        &self.region
    }

    /// The region is a part of the id; not of one of before regions.
    fn move_to(&mut self, region: &str) {
        let within = match self.region.as_str() {
            "" => key(&[&self.account_id, ""]),
            region => key(&[&self.account_id, region, ""]),
        };
        if let Some(rest) = self.id.strip_prefix(&within) {
            self.id = key(&[&self.account_id, region, rest]);
        }
        region.clone_into(&mut self.region);
    }
}
