//! AMIs.

use std::collections::BTreeSet;

use hearth_api::Kind;
use hearth_image::BootMode;
use serde::{Deserialize, Serialize};

use super::{Contents, Disk, Encryption, Snapshot, names};

use crate::catalog::volume_types::VolumeType;
use crate::state::noun::regional;
use crate::state::{Index, Noun, Scope, State, Sum, Tags, Tx, key};
use crate::views::ROOT_DEVICE;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    pub id: String,
    pub account_id: String,
    #[serde(default)]
    pub region: String,
    pub name: String,
    pub description: String,
    /// [`PENDING`], [`AVAILABLE`], [`FAILED`] or [`DEREGISTERED`]; the last lives on while a volume is based on it.
    pub state: String,
    /// Bytes of the root disk.
    pub size: u64,
    /// Of the root disk.
    pub digest: String,
    /// The root disk, in the repository. Empty while the image is pending, and where it is lost.
    #[serde(default)]
    pub snapshot: String,
    /// Of the root disk; `None`: it is not encrypted.
    #[serde(default)]
    pub encryption: Option<Encryption>,
    /// The root device first.
    #[serde(default)]
    pub devices: Vec<ImageDevice>,
    /// The disks of the instance store that instances have, if their type has them.
    #[serde(default)]
    pub store: Vec<StoreMapping>,
    /// What it was made from; `None`: it was uploaded or registered.
    #[serde(default)]
    pub source: Option<ImageSource>,
    /// Why it has failed.
    #[serde(default)]
    pub failure: String,
    /// Empty with the boot mode `uefi`.
    pub kernel_path: String,
    #[serde(with = "names::boot_mode")]
    pub boot_mode: BootMode,
    /// Whether its owner says that it has the driver.
    #[serde(default)]
    pub ena_support: bool,
    #[serde(default)]
    pub sriov_net_support: bool,
    /// Whether every account may launch it.
    #[serde(default)]
    pub is_public: bool,
    /// Accounts that may launch it, beside its own.
    #[serde(default)]
    pub shared_with: BTreeSet<String>,
    pub created_at: i64,
    pub tags: Tags,
}

/// A volume that each instance of an image has. IOPS and throughput are as they were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageDevice {
    /// Its name, such as `/dev/sda1`.
    pub device: String,
    /// What the volume begins with; `None`: it is blank, or the disk of the image is lost.
    pub snapshot_id: Option<String>,
    /// Of one that is blank: whether it is encrypted. What begins with a snapshot is as that.
    #[serde(default)]
    pub encrypted: bool,
    pub size_gib: u64,
    pub volume_type: VolumeType,
    pub iops: Option<u32>,
    pub throughput: Option<u32>,
    pub delete_on_termination: bool,
}

impl ImageDevice {
    /// The root device of an uploaded disk.
    pub fn root(bytes: u64, snapshot_id: Option<String>) -> Self {
        Self {
            device: ROOT_DEVICE.to_owned(),
            snapshot_id,
            encrypted: false,
            size_gib: bytes.div_ceil(1 << 30),
            volume_type: VolumeType::Gp3,
            iops: None,
            throughput: None,
            delete_on_termination: true,
        }
    }
}

/// A disk of the instance store, by its number, and the device that it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StoreMapping {
    pub number: u32,
    /// Such as `/dev/sdb`.
    pub device: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageSource {
    Instance {
        instance_id: String,
    },
    /// It is a copy.
    Image {
        image_id: String,
        region: String,
    },
}

/// Its snapshots are not completed yet.
pub const PENDING: &str = "pending";
pub const AVAILABLE: &str = "available";
/// A snapshot of it is in error.
pub const FAILED: &str = "failed";
pub const DEREGISTERED: &str = "deregistered";

impl Image {
    pub const BY_STATE: Index<Self> = Index::new("state", |i| vec![i.state.clone()]);
    /// Names of images; those of deregistered ones are free.
    pub const BY_NAME: Index<Self> = Index::unique("name", |i| {
        if i.is_registered() {
            vec![key(&[&i.account_id, &i.region, &i.name])]
        } else {
            Vec::new()
        }
    });
    /// By the account, the region and each name that [`Image::PARAMETER_TAG`] gives it.
    pub const BY_PARAMETER: Index<Self> = Index::new("parameter", |i| {
        i.parameters()
            .map(|name| key(&[&i.account_id, &i.region, name]))
            .collect()
    });
    /// By the snapshots that its volumes begin with.
    pub const BY_SNAPSHOT: Index<Self> = Index::refers::<Snapshot>("snapshot", |i| {
        i.devices
            .iter()
            .filter_map(|device| device.snapshot_id.clone())
            .collect()
    });
    /// By its disk in the repository.
    pub const BY_DISK: Index<Self> = Index::new("disk", |i| vec![i.snapshot.clone()]);
    /// A tag with the image's names in Systems Manager, separated by spaces.
    pub const PARAMETER_TAG: &str = "hearth:ssm-parameter";
    /// How many an account has in any state.
    pub const TOTAL: Sum<Self> = Sum {
        name: "total",
        part: |i| Some((i.account_id.clone(), [1, 0])),
    };

    /// Whether it is told.
    pub fn is_registered(&self) -> bool {
        self.state != DEREGISTERED
    }

    /// Whether it can be launched.
    pub fn is_available(&self) -> bool {
        self.state == AVAILABLE
    }

    /// Its names in Systems Manager.
    pub fn parameters(&self) -> impl Iterator<Item = &str> {
        let names = self.tags.get(Self::PARAMETER_TAG).filter(|_| self.is_available());
        names.into_iter().flat_map(|names| names.split_whitespace())
    }
}

impl Noun for Image {
    const KIND: &'static str = "image";
    const RESOURCE: Option<Kind> = Some(Kind::Image);
    const INDEXES: &'static [Index<Self>] = &[
        Self::BY_STATE,
        Self::BY_NAME,
        Self::BY_PARAMETER,
        Self::BY_DISK,
        Self::BY_SNAPSHOT,
    ];
    const SUMS: &'static [Sum<Self>] = &[Self::TOTAL];

    fn id(&self) -> &str {
        &self.id
    }

    fn account(&self) -> &str {
        &self.account_id
    }

    regional!();

    fn is_shared_with(&self, account_id: &str) -> bool {
        self.is_public || self.shared_with.contains(account_id)
    }

    /// A deregistered image has none any more.
    fn tags(&self) -> Option<&Tags> {
        self.is_registered().then_some(&self.tags)
    }

    fn tags_mut(&mut self) -> Option<&mut Tags> {
        self.is_registered().then_some(&mut self.tags)
    }
}

impl State {
    /// The images of a region that accounts have given a name in Systems Manager, the newest last.
    pub fn images_of_parameter(&self, account_ids: &BTreeSet<&str>, region: &str, name: &str) -> Vec<&Image> {
        let of = |account_id: &&str| self.by(&Image::BY_PARAMETER, &key(&[account_id, region, name]));
        let mut found: Vec<&Image> = account_ids.iter().flat_map(of).collect();
        found.sort_by_key(|image| (image.created_at, &image.id));
        found
    }

    pub fn image_named(&self, of: &Scope, name: &str) -> Option<&Image> {
        self.first_by(&Image::BY_NAME, &of.key(&[name]))
    }
}

impl Tx<'_> {
    /// A snapshot is not pending any more: images that have waited for it may be available, or have failed.
    pub(super) fn settle_images(&mut self, snapshot_id: &str) {
        let waiting = self.by(&Image::BY_SNAPSHOT, snapshot_id);
        let ids: Vec<String> = waiting.map(|image| image.id.clone()).collect();
        for id in ids {
            self.settle_image(&id);
        }
    }

    /// A pending image is available when all of its snapshots are completed, and fails with one of them.
    pub fn settle_image(&mut self, id: &str) {
        let Some(image) = self.get::<Image>(id).filter(|image| image.state == PENDING) else {
            return;
        };
        let mut root: Option<(Option<Disk>, Option<Encryption>)> = None;
        for device in &image.devices {
            let of = device
                .snapshot_id
                .as_deref()
                .and_then(|id| self.get::<Snapshot>(id));
            let Some(of) = of else { continue };
            match &of.contents {
                Contents::Pending(_) | Contents::Copying(_) => return,
                Contents::Completed { disk, .. } => {
                    root.get_or_insert_with(|| (disk.clone(), of.encryption.clone()));
                }
                Contents::Error { message } => {
                    let why = format!("The snapshot {} is in error. {message}", of.id);
                    return self.fail_image(id, why);
                }
            }
        }
        let Some((Some(disk), encryption)) = root else {
            return self.fail_image(id, "The root volume is blank.".to_owned());
        };
        self.update::<Image>(id, |image| {
            AVAILABLE.clone_into(&mut image.state);
            (image.size, image.digest, image.snapshot) = (disk.size, disk.digest, disk.name);
            image.encryption = encryption;
        });
        self.event("image.available", id);
    }

    fn fail_image(&mut self, id: &str, why: String) {
        tracing::warn!(image = id, why, "an image was not made");
        self.update::<Image>(id, |image| {
            FAILED.clone_into(&mut image.state);
            image.failure = why;
        });
        self.event("image.failed", id);
    }
}
