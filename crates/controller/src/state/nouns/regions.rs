//! Regions: name spaces that do not see one another ([`crate::state::Scope`]), each with zones of its own. One is the cloud's
//! home, which `hearthd` is started with; the others are made by the operator.

use serde::{Deserialize, Serialize};

use crate::state::{Index, Noun, State};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    pub name: String,
    /// Availability zones, in the order in which they were named.
    pub zones: Vec<String>,
    /// Milliseconds since the epoch.
    pub created_at: i64,
}

impl Region {
    /// A zone's name tells its region.
    pub const BY_ZONE: Index<Self> = Index::unique("zone", |region| region.zones.clone());
}

/// Regions are the operator's.
impl Noun for Region {
    const KIND: &'static str = "region";
    const INDEXES: &'static [Index<Self>] = &[Self::BY_ZONE];

    fn id(&self) -> &str {
        &self.name
    }
}

impl State {
    pub fn region(&self, name: &str) -> Option<&Region> {
        self.get(name)
    }

    pub fn region_of_zone(&self, zone: &str) -> Option<&Region> {
        self.first_by(&Region::BY_ZONE, zone)
    }

    /// Whether a zone is of another region. One that is in no region any more is of none.
    pub fn is_abroad(&self, zone: &str, region: &str) -> bool {
        self.region_of_zone(zone).is_some_and(|of| of.name != region)
    }
}
