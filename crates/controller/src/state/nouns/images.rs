//! AMIs.

use std::collections::BTreeSet;

use hearth_api::Kind;
use hearth_image::BootMode;
use serde::{Deserialize, Serialize};

use super::names;

use crate::state::noun::regional;
use crate::state::{Index, Noun, Scope, State, Sum, Tags, key};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    pub id: String,
    pub account_id: String,
    #[serde(default)]
    pub region: String,
    pub name: String,
    pub description: String,
    /// [`AVAILABLE`] or [`DEREGISTERED`]; the latter lives on while a volume is based on it.
    pub state: String,
    /// Bytes.
    pub size: u64,
    /// Of the disk.
    pub digest: String,
    /// The disk, in the repository. Empty where an older version has it as a file, or it is lost.
    #[serde(default)]
    pub snapshot: String,
    /// Empty with the boot mode `uefi`.
    pub kernel_path: String,
    #[serde(with = "names::boot_mode")]
    pub boot_mode: BootMode,
    /// Whether every account may launch it.
    #[serde(default)]
    pub is_public: bool,
    /// Accounts that may launch it, beside its own.
    #[serde(default)]
    pub shared_with: BTreeSet<String>,
    pub created_at: i64,
    pub tags: Tags,
}

pub const AVAILABLE: &str = "available";
pub const DEREGISTERED: &str = "deregistered";

impl Image {
    pub const BY_STATE: Index<Self> = Index::new("state", |i| vec![i.state.clone()]);
    /// Names of available images; those of deregistered ones are free.
    pub const BY_NAME: Index<Self> = Index::unique("name", |i| {
        if i.is_available() {
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
    /// By its disk in the repository.
    pub const BY_DISK: Index<Self> = Index::new("disk", |i| vec![i.snapshot.clone()]);
    /// A tag with the image's names in Systems Manager, separated by spaces.
    pub const PARAMETER_TAG: &str = "hearth:ssm-parameter";
    /// How many an account has in any state, and the bytes of their disks: a disk is there until the last of its volumes is
    /// gone.
    pub const TOTAL: Sum<Self> = Sum {
        name: "total",
        part: |i| Some((i.account_id.clone(), [1, i.size])),
    };

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
    const INDEXES: &'static [Index<Self>] =
        &[Self::BY_STATE, Self::BY_NAME, Self::BY_PARAMETER, Self::BY_DISK];
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
        self.is_available().then_some(&self.tags)
    }

    fn tags_mut(&mut self) -> Option<&mut Tags> {
        self.is_available().then_some(&mut self.tags)
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
