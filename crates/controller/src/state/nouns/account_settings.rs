//! What holds for all instances of an account.

use serde::{Deserialize, Serialize};

use crate::state::{Noun, State};

/// Of an account that has set something. What it has not is as in a new account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountSettings {
    pub account_id: String,
    /// Whether keys may be sent to serial consoles.
    pub serial_console_access: bool,
    pub metadata_defaults: MetadataDefaults,
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
        &self.account_id
    }

    fn account(&self) -> &str {
        &self.account_id
    }
}

impl State {
    pub fn account_settings(&self, account_id: &str) -> AccountSettings {
        let new = || AccountSettings {
            account_id: account_id.to_owned(),
            ..Default::default()
        };
        self.get::<AccountSettings>(account_id)
            .cloned()
            .unwrap_or_else(new)
    }
}
