//! Volumes. They exist without an instance.

use hearth_api::Kind;
use serde::{Deserialize, Serialize};

use super::{Attachment, Host, Image, Instance};
use crate::state::noun::resource;
use crate::state::{Concern, Index, Noun, State, Sum, Tags};

/// A volume is also its host's disk claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct Volume {
    pub id: String,
    pub account_id: String,
    pub region: String,
    /// `None`: no instance has it.
    pub attachment: Option<Attachment>,
    /// Of its newest attachment; 0 if it never had one.
    pub epoch: u64,
    pub host_id: String,
    pub image_id: String,
    pub size_gib: u64,
    pub created_at: i64,
    /// It is to be erased, and exists until its host has said that nothing of it is left.
    pub deleting: bool,
    pub tags: Tags,
}

/// As the database has it: also volumes of before there were attachments.
#[derive(Deserialize)]
struct Stored {
    id: String,
    account_id: String,
    #[serde(default)]
    region: String,
    #[serde(default)]
    attachment: Option<Attachment>,
    #[serde(default)]
    epoch: Option<u64>,
    host_id: String,
    image_id: String,
    size_gib: u64,
    created_at: i64,
    #[serde(default)]
    deleting: bool,
    tags: Tags,
    // Of before.
    #[serde(default)]
    instance_id: Option<String>,
    #[serde(default)]
    device_name: String,
    #[serde(default)]
    delete_on_termination: bool,
}

impl From<Stored> for Volume {
    fn from(stored: Stored) -> Self {
        let (device, deletes, at) = (
            &stored.device_name,
            stored.delete_on_termination,
            stored.created_at,
        );
        let before = stored
            .instance_id
            .map(|instance| Attachment::first(&instance, device, deletes, at));
        Self {
            id: stored.id,
            account_id: stored.account_id,
            region: stored.region,
            attachment: stored.attachment.or(before),
            epoch: stored.epoch.unwrap_or(1),
            host_id: stored.host_id,
            image_id: stored.image_id,
            size_gib: stored.size_gib,
            created_at: stored.created_at,
            deleting: stored.deleting,
            tags: stored.tags,
        }
    }
}

impl Volume {
    pub const BY_INSTANCE: Index<Self> = Index::refers::<Instance>("instance", |v| {
        v.instance_id().map(str::to_owned).into_iter().collect()
    });
    pub const BY_HOST: Index<Self> = Index::refers::<Host>("host", |v| vec![v.host_id.clone()]);
    pub const BY_IMAGE: Index<Self> = Index::refers::<Image>("image", |v| vec![v.image_id.clone()]);
    /// Volumes of a host, and their GiB.
    pub const ON_HOST: Sum<Self> = Sum {
        name: "host",
        part: |v| Some((v.host_id.clone(), [1, v.size_gib])),
    };

    /// The instance that has it.
    pub fn instance_id(&self) -> Option<&str> {
        Some(&self.attachment.as_ref()?.instance_id)
    }
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
        vec![match self.instance_id() {
            Some(instance_id) => Concern::Instance {
                host_id,
                instance_id: instance_id.to_owned(),
            },
            None => Concern::Volume {
                host_id,
                volume_id: self.id.clone(),
            },
        }]
    }

    resource!();
}
