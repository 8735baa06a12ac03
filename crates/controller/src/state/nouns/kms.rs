//! Keys of KMS, and their names. What they do is in [`crate::keys`].

use hearth_api::ErrorCode;
use serde::{Deserialize, Serialize};

use crate::state::noun::{regional, resource};
use crate::state::{Bound, Index, Noun, Scope, State, Tags, key};

/// A key that seals data keys. It goes with its material when a deletion is due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KmsKey {
    /// A UUID.
    pub id: String,
    pub account_id: String,
    pub region: String,
    pub description: String,
    /// The cloud has made it, for what an account encrypts without naming a key: [`KmsAlias::EBS`].
    pub is_managed: bool,
    pub is_enabled: bool,
    pub deletion: Option<Deletion>,
    /// The newest last: it seals, and the others open what they have sealed.
    pub materials: Vec<Material>,
    /// Days between rotations; `None`: it gets new material when somebody asks for it.
    pub rotation_days: Option<u32>,
    /// Milliseconds since the epoch; from then on days are counted.
    pub rotates_from: i64,
    /// Milliseconds since the epoch.
    pub created_at: i64,
    pub tags: Tags,
    /// Who may use it, as JSON; `None`: as [`policy_of`](crate::iam::policy_of) says.
    #[serde(default)]
    pub policy: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletion {
    /// Milliseconds since the epoch.
    pub at: i64,
    pub days: u32,
}

/// A key of AES-256, sealed under the key of hearthd's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Material {
    pub sealed: String,
    /// Milliseconds since the epoch.
    pub made_at: i64,
    /// Whether somebody has asked for it, by RotateKeyOnDemand.
    pub on_demand: bool,
}

const DAY: i64 = 24 * 3600 * 1000;

impl KmsKey {
    /// Keys with a deletion or a rotation, each once, under [`Self::WAITS`].
    pub const BY_WAITING: Index<Self> = Index::new("waiting", |k| {
        let waits = k.deletion.is_some() || k.rotation_days.is_some();
        waits.then(|| Self::WAITS.to_owned()).into_iter().collect()
    });
    pub const WAITS: &str = "yes";

    /// `Enabled`, `Disabled` or `PendingDeletion`.
    pub fn state(&self) -> &'static str {
        match (&self.deletion, self.is_enabled) {
            (Some(_), _) => "PendingDeletion",
            (None, true) => "Enabled",
            (None, false) => "Disabled",
        }
    }

    pub fn can_be_used(&self) -> bool {
        self.is_enabled && self.deletion.is_none()
    }

    pub fn arn(&self) -> String {
        arn(&self.region, &self.account_id, &self.id)
    }

    /// When it gets new material, in milliseconds since the epoch.
    pub fn rotation_due(&self) -> Option<i64> {
        let days = self.rotation_days.filter(|_| self.can_be_used())?;
        Some(self.rotates_from.saturating_add(i64::from(days) * DAY))
    }

    /// Goes with its material in some days.
    pub fn delete_in(&mut self, days: u32, now: i64) {
        let at = now.saturating_add(i64::from(days) * DAY);
        self.deletion = Some(Deletion { at, days });
        self.is_enabled = false;
    }
}

fn arn(region: &str, account_id: &str, id: &str) -> String {
    format!("arn:aws:kms:{region}:{account_id}:key/{id}")
}

impl Noun for KmsKey {
    const KIND: &'static str = "kms-key";
    const INDEXES: &'static [Index<Self>] = &[Self::BY_WAITING];
    /// AWS has 100,000.
    const BOUND: Option<Bound> = Some(Bound::new(10_000, "KMS keys", ErrorCode::LimitExceededException));

    resource!();
}

/// A name of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KmsAlias {
    pub id: String,
    pub account_id: String,
    pub region: String,
    /// With `alias/`.
    pub name: String,
    pub key_id: String,
    /// Milliseconds since the epoch.
    pub created_at: i64,
    pub updated_at: i64,
}

impl KmsAlias {
    /// What all names begin with.
    pub const PREFIX: &str = "alias/";
    /// The name of the key that the cloud makes for an account.
    pub const EBS: &str = "alias/aws/ebs";
    pub const BY_NAME: Index<Self> =
        Index::unique("name", |a| vec![key(&[&a.account_id, &a.region, &a.name])]);
    pub const BY_KEY: Index<Self> = Index::owned::<KmsKey>("key", |a| vec![a.key_id.clone()]);

    pub fn arn(&self) -> String {
        format!("arn:aws:kms:{}:{}:{}", self.region, self.account_id, self.name)
    }
}

impl Noun for KmsAlias {
    const KIND: &'static str = "kms-alias";
    const INDEXES: &'static [Index<Self>] = &[Self::BY_NAME, Self::BY_KEY];
    const BOUND: Option<Bound> = Some(Bound::new(
        50_000,
        "KMS aliases",
        ErrorCode::LimitExceededException,
    ));

    fn id(&self) -> &str {
        &self.id
    }

    fn account(&self) -> &str {
        &self.account_id
    }

    regional!();
}

/// What something encrypted is under: a data key, sealed by a KMS key of its region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encryption {
    pub key_id: String,
    /// Of the key.
    pub account_id: String,
    /// Which of the key's materials has sealed the data key, from 0 on.
    pub material: usize,
    /// The data key, sealed.
    pub data_key: String,
}

impl Encryption {
    /// The KMS key's ARN. `region`: of what is encrypted.
    pub fn arn(&self, region: &str) -> String {
        arn(region, &self.account_id, &self.key_id)
    }
}

impl State {
    pub fn kms_alias(&self, of: &Scope, name: &str) -> Option<&KmsAlias> {
        self.first_by(&KmsAlias::BY_NAME, &of.key(&[name]))
    }

    /// A key of an account and region, by its id, a name, or the ARN of either. Another account's of that region is found by its
    /// ARN: its policy says who may use it ([`crate::iam`]).
    pub fn kms_key(&self, of: &Scope, given: &str) -> Option<&KmsKey> {
        let found = |id| {
            let found = self.of_anybody::<KmsKey>(id);
            found.filter(|key| key.region == of.region())
        };
        if let Some((_, id)) = given.rsplit_once(":key/") {
            return found(id).filter(|key| key.arn() == given);
        }
        let own = format!("arn:aws:kms:{}:{}:", of.region(), of.account_id());
        let given = given.strip_prefix(own.as_str()).unwrap_or(given);
        let id = match given.starts_with(KmsAlias::PREFIX) {
            true => &self.kms_alias(of, given)?.key_id,
            false => given,
        };
        found(id).filter(|key| key.account_id == of.account_id())
    }
}
