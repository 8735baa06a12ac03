//! Scrubs of the repository.

use serde::{Deserialize, Serialize};

use crate::state::Noun;

/// The last scrub of the repository. There is one at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scrub {
    pub state: ScrubState,
    /// The repository that damaged objects are taken from; empty: there is none.
    pub copy: String,
    /// Milliseconds since the epoch.
    pub started_at: i64,
    pub ended_at: Option<i64>,
    /// Objects that were read.
    pub checked: u64,
    /// Of how many, about.
    pub of: u64,
    pub damage_count: u64,
    pub repaired_count: u64,
    /// The first [`MAX_DAMAGES`], in the order of their objects.
    pub damages: Vec<StorageDamage>,
    /// Why it failed.
    pub failure: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScrubState {
    /// Or it shall: one that is cut off begins again.
    Running,
    Completed,
    Failed,
}

/// What is not as it was stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageDamage {
    /// Its path in the repository.
    pub object: String,
    pub reason: String,
    pub repaired: bool,
    /// Disks in the repository that need it; not all, where there are many.
    pub disks: Vec<String>,
}

/// Damages of a scrub that are kept.
pub const MAX_DAMAGES: usize = 1000;

impl Scrub {
    pub const ID: &str = "repository";

    pub fn begin(copy: &str, now: i64) -> Self {
        Self {
            state: ScrubState::Running,
            copy: copy.to_owned(),
            started_at: now,
            ended_at: None,
            checked: 0,
            of: 0,
            damage_count: 0,
            repaired_count: 0,
            damages: Vec::new(),
            failure: String::new(),
        }
    }

    pub fn is_running(&self) -> bool {
        self.state == ScrubState::Running
    }

    /// How much is read. The rest may be what nothing needs.
    pub fn percent(&self) -> u64 {
        match self.state {
            ScrubState::Completed => 100,
            ScrubState::Running | ScrubState::Failed => {
                (self.checked.saturating_mul(100) / self.of.max(1)).min(99)
            }
        }
    }
}

/// It is the operator's.
impl Noun for Scrub {
    const KIND: &'static str = "scrub";

    fn id(&self) -> &str {
        Self::ID
    }
}
