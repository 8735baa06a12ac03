//! What holds for all instances of an account in a region.

use serde::{Deserialize, Serialize};

use crate::state::{Noun, Scope, State};

/// Of an account that has set something in a region. What it has not is as in a new account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct AccountSettings {
    /// [`Scope::key`].
    pub id: String,
    pub account_id: String,
    pub region: String,
    /// Whether keys may be sent to serial consoles.
    pub serial_console_access: bool,
    pub metadata_defaults: MetadataDefaults,
    /// Whether volumes are encrypted that do not ask for it.
    pub ebs_encryption: bool,
    /// The KMS key, by its id, or by its ARN if it is another account's, of what is encrypted and names none; `None`: [`KmsAlias::EBS`](super::KmsAlias::EBS).
    pub ebs_key: Option<String>,
    /// Zones that have had their default subnet: what was deleted since does not come back by itself.
    pub furnished_zones: Vec<String>,
}

/// As the database has it: also settings of before there were regions.
#[derive(Deserialize)]
struct Stored {
    #[serde(default)]
    id: Option<String>,
    account_id: String,
    #[serde(default)]
    region: String,
    serial_console_access: bool,
    metadata_defaults: MetadataDefaults,
    #[serde(default)]
    ebs_encryption: bool,
    #[serde(default)]
    ebs_key: Option<String>,
    #[serde(default)]
    furnished_zones: Vec<String>,
}

impl From<Stored> for AccountSettings {
    fn from(stored: Stored) -> Self {
        Self {
            id: stored.id.unwrap_or_else(|| stored.account_id.clone()),
            account_id: stored.account_id,
            region: stored.region,
            serial_console_access: stored.serial_console_access,
            metadata_defaults: stored.metadata_defaults,
            ebs_encryption: stored.ebs_encryption,
            ebs_key: stored.ebs_key,
            furnished_zones: stored.furnished_zones,
        }
    }
}

/// Metadata options of launches that do not give them. `None`: EC2's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataDefaults {
    pub http_tokens: Option<String>,
    pub http_endpoint: Option<String>,
    pub http_put_response_hop_limit: Option<i32>,
    pub instance_metadata_tags: Option<String>,
}

impl Noun for AccountSettings {
    const KIND: &'static str = "account-settings";

    fn id(&self) -> &str {
        &self.id
    }

    fn account(&self) -> &str {
        &self.account_id
    }

    fn region(&self) -> &str {
        &self.region
    }

    fn move_to(&mut self, region: &str) {
        region.clone_into(&mut self.region);
        self.id = Scope::new(&self.account_id, region).key(&[]);
    }
}

impl State {
    pub fn account_settings(&self, of: &Scope) -> AccountSettings {
        let id = of.key(&[]);
        let found = self.get::<AccountSettings>(&id).cloned();
        found.unwrap_or_else(|| AccountSettings {
            id,
            account_id: of.account_id().to_owned(),
            region: of.region().to_owned(),
            ..Default::default()
        })
    }
}
