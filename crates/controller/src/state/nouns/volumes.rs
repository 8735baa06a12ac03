//! Volumes.

use hearth_api::Kind;
use serde::{Deserialize, Serialize};

use super::{Host, Image, Instance};
use crate::state::noun::resource;
use crate::state::{Concern, Index, Noun, State, Sum, Tags};

/// A volume is also its host's disk claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub id: String,
    pub account_id: String,
    /// `None` for one that outlived its instance.
    pub instance_id: Option<String>,
    pub host_id: String,
    pub image_id: String,
    pub device_name: String,
    pub size_gib: u64,
    pub delete_on_termination: bool,
    pub created_at: i64,
    /// It is to be erased, and exists until its host has said that nothing of it is left.
    #[serde(default)]
    pub deleting: bool,
    pub tags: Tags,
}

impl Volume {
    pub const BY_INSTANCE: Index<Self> =
        Index::refers::<Instance>("instance", |v| v.instance_id.iter().cloned().collect());
    pub const BY_HOST: Index<Self> = Index::refers::<Host>("host", |v| vec![v.host_id.clone()]);
    pub const BY_IMAGE: Index<Self> = Index::refers::<Image>("image", |v| vec![v.image_id.clone()]);
    /// Volumes of a host, and their GiB.
    pub const ON_HOST: Sum<Self> = Sum {
        name: "host",
        part: |v| Some((v.host_id.clone(), [1, v.size_gib])),
    };
}

impl Noun for Volume {
    const KIND: &'static str = "volume";
    const RESOURCE: Option<Kind> = Some(Kind::Volume);
    const INDEXES: &'static [Index<Self>] = &[Self::BY_INSTANCE, Self::BY_HOST, Self::BY_IMAGE];
    const SUMS: &'static [Sum<Self>] = &[Self::ON_HOST];

    fn room(&self) -> Option<&str> {
        Some(&self.host_id)
    }

    fn concerns(&self, _: &State) -> Vec<Concern> {
        let host_id = self.host_id.clone();
        vec![match &self.instance_id {
            Some(instance_id) => Concern::Instance {
                host_id,
                instance_id: instance_id.clone(),
            },
            None => Concern::Volume {
                host_id,
                volume_id: self.id.clone(),
            },
        }]
    }

    resource!();
}
