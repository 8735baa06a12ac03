//! Where instances are, and what they hold there.

use hearth_api::v1;
use serde::{Deserialize, Serialize};

use super::{Host, Instance};
use crate::state::{Concern, Index, Noun, State, Sum};

/// What an instance holds of its host's vCPUs and memory. It is also the host's duty for the instance: it exists from the
/// launch until the agent has said that nothing is left. A stopped instance's claim is zero.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub instance_id: String,
    pub host_id: String,
    pub vcpus: u64,
    pub memory_mib: u64,
}

impl Claim {
    pub const BY_HOST: Index<Self> = Index::refers::<Host>("host", |c| vec![c.host_id.clone()]);
    /// vCPUs and MiB that are claimed of a host.
    pub const ON_HOST: Sum<Self> = Sum {
        name: "host",
        part: |c| Some((c.host_id.clone(), [c.vcpus, c.memory_mib])),
    };
}

impl Noun for Claim {
    const KIND: &'static str = "claim";
    const INDEXES: &'static [Index<Self>] = &[
        Self::BY_HOST,
        Index::refers::<Instance>("instance", |c| vec![c.instance_id.clone()]),
    ];
    const SUMS: &'static [Sum<Self>] = &[Self::ON_HOST];

    fn room(&self) -> Option<&str> {
        Some(&self.host_id)
    }

    fn concerns(&self, _: &State) -> Vec<Concern> {
        vec![Concern::Instance {
            host_id: self.host_id.clone(),
            instance_id: self.instance_id.clone(),
        }]
    }

    fn id(&self) -> &str {
        &self.instance_id
    }
}

impl State {
    /// Where an instance is, as the API tells it.
    pub fn placement_of(&self, row: &Instance) -> v1::Placement {
        v1::Placement {
            availability_zone: row.availability_zone.clone(),
            host_id: row.host_id.clone(),
        }
    }
}
