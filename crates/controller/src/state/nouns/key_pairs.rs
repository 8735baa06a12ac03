//! Key pairs: public halves only.

use hearth_api::{ErrorCode, Kind};
use serde::{Deserialize, Serialize};

use crate::state::noun::resource;
use crate::state::{Bound, Index, Noun, Scope, State, Tags, key};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPair {
    pub id: String,
    pub account_id: String,
    #[serde(default)]
    pub region: String,
    pub name: String,
    pub key_type: String,
    pub fingerprint: String,
    /// A line of OpenSSH's `authorized_keys`.
    pub public_key: String,
    pub created_at: i64,
    pub tags: Tags,
}

impl KeyPair {
    pub const BY_NAME: Index<Self> =
        Index::unique("name", |k| vec![key(&[&k.account_id, &k.region, &k.name])]);
}

impl Noun for KeyPair {
    const KIND: &'static str = "key-pair";
    const RESOURCE: Option<Kind> = Some(Kind::KeyPair);
    const INDEXES: &'static [Index<Self>] = &[Self::BY_NAME];
    /// <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateKeyPair.html>
    const BOUND: Option<Bound> = Some(Bound::new(5000, "key pairs", ErrorCode::ResourceLimitExceeded));

    resource!();
}

impl State {
    pub fn key_pair_named(&self, of: &Scope, name: &str) -> Option<&KeyPair> {
        self.first_by(&KeyPair::BY_NAME, &of.key(&[name]))
    }
}
