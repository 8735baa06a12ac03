//! Accounts: tenants that do not see one another ([`crate::state::Scope`]).

use serde::{Deserialize, Serialize};

use crate::state::{Index, Noun, State};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// 12 digits.
    pub id: String,
    pub name: String,
    /// Milliseconds since the epoch.
    pub created_at: i64,
}

impl Account {
    pub const BY_NAME: Index<Self> = Index::unique("name", |account| vec![account.name.clone()]);

    pub fn new_id() -> String {
        format!(
            "{:012}",
            rand::random_range(100_000_000_000u64..1_000_000_000_000)
        )
    }
}

/// Accounts are the operator's.
impl Noun for Account {
    const KIND: &'static str = "account";
    const INDEXES: &'static [Index<Self>] = &[Self::BY_NAME];

    fn id(&self) -> &str {
        &self.id
    }
}

impl State {
    pub fn account(&self, id: &str) -> Option<&Account> {
        self.get(id)
    }
}
