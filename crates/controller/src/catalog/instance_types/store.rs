//! The instance store of a type: disks of the host that an instance has for as long as it runs.
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/InstanceStorage.html>

use hearth_api::v1;

use super::UNSUPPORTED;

/// Of an instance: `ephemeral0` to `ephemeral23`.
pub const MAX_DISKS: u32 = 24;

/// Of nvme support: there is no other way to the disks.
const REQUIRED: &str = "required";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstanceStore {
    /// 1 to [`MAX_DISKS`].
    pub disks: u32,
    /// GB (10^9 bytes) of each.
    pub size_gb: u32,
    pub media: Media,
}

/// What the disks are, as EC2 tells it. Here all are files of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Media {
    Hdd,
    Ssd,
    /// SSDs on the NVMe bus: an instance has them without being asked. Others it has by a block device mapping.
    Nvme,
}

impl InstanceStore {
    /// Such as `24x2048 hdd`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (size, media) = text.split_once(' ')?;
        let (disks, size_gb) = size.split_once('x')?;
        Some(Self {
            disks: disks.parse().ok()?,
            size_gb: size_gb.parse().ok()?,
            media: match media {
                "hdd" => Media::Hdd,
                "ssd" => Media::Ssd,
                "nvme" => Media::Nvme,
                _ => return None,
            },
        })
    }

    /// All disks together.
    pub fn total_gb(self) -> u64 {
        u64::from(self.disks) * u64::from(self.size_gb)
    }

    /// `hdd` or `ssd`.
    pub fn kind(self) -> &'static str {
        match self.media {
            Media::Hdd => "hdd",
            Media::Ssd | Media::Nvme => "ssd",
        }
    }

    pub(super) fn info(self) -> v1::InstanceStorageInfo {
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        v1::InstanceStorageInfo {
            total_size_in_gb: signed(self.total_gb()),
            disks: vec![v1::DiskInfo {
                size_in_gb: self.size_gb.into(),
                count: i32::try_from(self.disks).unwrap_or(i32::MAX),
                r#type: self.kind().into(),
            }],
            nvme_support: match self.media {
                Media::Hdd | Media::Ssd => UNSUPPORTED,
                Media::Nvme => REQUIRED,
            }
            .into(),
            encryption_support: UNSUPPORTED.into(),
        }
    }
}
