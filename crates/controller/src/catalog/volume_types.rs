//! Volume types: how large and how fast volumes may be, with EC2's figures.
//! <https://docs.aws.amazon.com/ebs/latest/userguide/ebs-volume-types.html>

use std::ops::RangeInclusive;

use hearth_api::{ApiError, ErrorCode};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VolumeType {
    Gp2,
    Gp3,
    Io1,
    Io2,
    Sc1,
    St1,
    Standard,
}

/// What a volume is asked to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSpec {
    pub size_gib: u64,
    pub volume_type: VolumeType,
    /// Requests per second that are provisioned; only where the type has that.
    pub iops: Option<u32>,
    /// MiB per second that are provisioned; only where the type has that.
    pub throughput: Option<u32>,
}

/// What its host holds a volume to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Requests per second, each of at most 256 KiB.
    pub iops: u32,
    pub throughput_mib: u32,
}

/// IOPS that a caller provisions.
struct Provisioned {
    admitted: RangeInclusive<u32>,
    per_gib: u64,
    /// Of a volume whose creator names none.
    default: Option<u32>,
}

/// IOPS of a gp3 volume, and of one that becomes of a type with provisioned IOPS, when no number is given.
const DEFAULT_IOPS: u32 = 3000;
/// MiB per second of a gp3 volume.
const DEFAULT_THROUGHPUT: u32 = 125;
const GP3_THROUGHPUT: RangeInclusive<u32> = DEFAULT_THROUGHPUT..=2000;
/// MiB per second that requests of 256 KiB make: four of them one MiB.
const REQUESTS_PER_MIB: u32 = 4;

impl VolumeType {
    pub const ALL: [Self; 7] = [
        Self::Gp2,
        Self::Gp3,
        Self::Io1,
        Self::Io2,
        Self::Sc1,
        Self::St1,
        Self::Standard,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gp2 => "gp2",
            Self::Gp3 => "gp3",
            Self::Io1 => "io1",
            Self::Io2 => "io2",
            Self::Sc1 => "sc1",
            Self::St1 => "st1",
            Self::Standard => "standard",
        }
    }

    /// # Errors
    /// `UnknownVolumeType`.
    pub fn parse(name: &str) -> Result<Self, ApiError> {
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == name);
        found.ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.into_iter().map(Self::as_str).collect();
            ApiError::new(
                ErrorCode::UnknownVolumeType,
                format!(
                    "Unsupported volume type '{name}' for volume creation. The types are {}.",
                    known.join(", ")
                ),
            )
        })
    }

    /// Whether an instance can boot from a volume of this type.
    pub fn boots(self) -> bool {
        !matches!(self, Self::Sc1 | Self::St1)
    }

    /// GiB.
    fn sizes(self) -> RangeInclusive<u64> {
        match self {
            Self::Gp2 => 1..=16_384,
            Self::Gp3 => 1..=65_536,
            Self::Io1 => 4..=16_384,
            Self::Io2 => 4..=65_536,
            Self::Sc1 | Self::St1 => 125..=16_384,
            Self::Standard => 1..=1024,
        }
    }

    fn provisioned(self) -> Option<Provisioned> {
        let (admitted, per_gib, default) = match self {
            Self::Gp3 => (DEFAULT_IOPS..=80_000, 500, Some(DEFAULT_IOPS)),
            Self::Io1 => (100..=64_000, 50, None),
            Self::Io2 => (100..=256_000, 1000, None),
            Self::Gp2 | Self::Sc1 | Self::St1 | Self::Standard => return None,
        };
        Some(Provisioned {
            admitted,
            per_gib,
            default,
        })
    }
}

impl VolumeSpec {
    /// A gp3 volume of which nothing but the size is asked for.
    pub fn plain(size_gib: u64) -> Self {
        Self {
            size_gib,
            volume_type: VolumeType::Gp3,
            iops: Some(DEFAULT_IOPS),
            throughput: Some(DEFAULT_THROUGHPUT),
        }
    }

    /// A new volume.
    ///
    /// # Errors
    /// What EC2 does not admit: `InvalidParameterValue`, `InvalidParameterCombination`, `InvalidParameterDependency`,
    /// `MissingParameter`.
    pub fn new(
        volume_type: VolumeType,
        size_gib: i32,
        iops: Option<i32>,
        throughput: Option<i32>,
    ) -> Result<Self, ApiError> {
        let default = volume_type.provisioned().and_then(|iops| iops.default);
        let spec = Self {
            size_gib: size(volume_type, size_gib)?,
            volume_type,
            iops: provisioned_iops(volume_type, iops)?.or(default),
            throughput: provisioned_throughput(volume_type, throughput)?,
        };
        if volume_type.provisioned().is_some() && spec.iops.is_none() {
            let name = volume_type.as_str();
            return Err(ApiError::new(
                ErrorCode::MissingParameter,
                format!("The parameter iops must be specified for {name} volumes."),
            ));
        }
        spec.check_ratios()?;
        Ok(spec)
    }

    /// The same volume, modified. What is `None` stays as it is where the type stays, and else becomes what EC2 gives to the
    /// new type.
    ///
    /// # Errors
    /// As [`VolumeSpec::new`]; a size that is less than before.
    pub fn modified(
        &self,
        volume_type: Option<VolumeType>,
        size_gib: Option<i32>,
        iops: Option<i32>,
        throughput: Option<i32>,
    ) -> Result<Self, ApiError> {
        let kind = volume_type.unwrap_or(self.volume_type);
        let kept = (kind == self.volume_type).then_some(*self);
        let size_gib = match size_gib {
            Some(given) => size(kind, given)?,
            None => size(kind, i32::try_from(self.size_gib).unwrap_or(i32::MAX))?,
        };
        if size_gib < self.size_gib {
            return Err(ApiError::new(
                ErrorCode::InvalidParameterValue,
                format!(
                    "New size cannot be smaller than existing size: the volume has {} GiB.",
                    self.size_gib
                ),
            ));
        }
        let default = kind.provisioned().map(|_| DEFAULT_IOPS);
        let iops = provisioned_iops(kind, iops)?;
        let throughput = provisioned_throughput(kind, throughput.or_else(|| signed(kept?.throughput)))?;
        let spec = Self {
            size_gib,
            volume_type: kind,
            iops: iops.or_else(|| kept?.iops).or(default),
            throughput,
        };
        spec.check_ratios()?;
        Ok(spec)
    }

    /// # Errors
    /// More IOPS than the size admits, or more throughput than the IOPS do.
    fn check_ratios(&self) -> Result<(), ApiError> {
        let Some((provisioned, iops)) = self.volume_type.provisioned().zip(self.iops) else {
            return Ok(());
        };
        // The least that a type admits is admitted with any size.
        let is_least = iops == *provisioned.admitted.start();
        if u64::from(iops) > self.size_gib * provisioned.per_gib && !is_least {
            let message = match self.volume_type {
                VolumeType::Io2 => {
                    "io2 volumes configured with greater than 64 TiB or 256K IOPS or 1000:1 IOPS:GB \
                                    ratio are not supported."
                        .to_owned()
                }
                _ => format!(
                    "Iops to volume size ratio of {:.6} is too high; maximum is {}",
                    f64::from(iops) / self.size_gib as f64,
                    provisioned.per_gib
                ),
            };
            let code = match self.volume_type {
                VolumeType::Io2 => ErrorCode::InvalidParameterCombination,
                _ => ErrorCode::InvalidParameterValue,
            };
            return Err(ApiError::new(code, message));
        }
        if let Some(throughput) = self.throughput
            && throughput > iops / REQUESTS_PER_MIB
        {
            return Err(ApiError::new(
                ErrorCode::InvalidParameterValue,
                format!(
                    "Throughput (MiBps) to iops ratio of {:.6} is too high; maximum is 0.250000 MiBps per iops",
                    f64::from(throughput) / f64::from(iops)
                ),
            ));
        }
        Ok(())
    }

    /// What DescribeVolumes tells: the provisioned IOPS, or the baseline of gp2, which is three per GiB.
    pub fn told_iops(&self) -> Option<u32> {
        match self.volume_type {
            VolumeType::Gp2 => Some(scaled(self.size_gib, 3, 1).clamp(100, 16_000)),
            _ => self.iops,
        }
    }

    /// What its host holds it to. Of types that earn credits this is what they may have for a while: hosts count no credits.
    pub fn limits(&self) -> Limits {
        let (iops, throughput_mib) = match self.volume_type {
            VolumeType::Gp2 => {
                let burst = self.told_iops().unwrap_or_default().max(3000);
                (burst, if self.size_gib <= 170 { 128 } else { 250 })
            }
            VolumeType::Gp3 => (
                self.iops.unwrap_or(DEFAULT_IOPS),
                self.throughput.unwrap_or(DEFAULT_THROUGHPUT),
            ),
            VolumeType::Io1 => {
                let iops = self.iops.unwrap_or(DEFAULT_IOPS);
                (iops, (iops / REQUESTS_PER_MIB).min((iops / 64).max(500)))
            }
            VolumeType::Io2 => {
                let iops = self.iops.unwrap_or(DEFAULT_IOPS);
                (iops, (iops / REQUESTS_PER_MIB).min(4000))
            }
            // 250 and 80 MiB/s per TiB, at most 500 and 250. Requests count by the MiB there, and here by 256 KiB.
            VolumeType::St1 => hdd(scaled(self.size_gib, 250, 1024).min(500)),
            VolumeType::Sc1 => hdd(scaled(self.size_gib, 80, 1024).min(250)),
            VolumeType::Standard => (200, 90),
        };
        Limits {
            iops,
            throughput_mib: throughput_mib.max(1),
        }
    }
}

fn hdd(throughput_mib: u32) -> (u32, u32) {
    (throughput_mib * REQUESTS_PER_MIB, throughput_mib)
}

/// `gib` times `by`, per `per` GiB.
fn scaled(gib: u64, by: u64, per: u64) -> u32 {
    u32::try_from(gib.saturating_mul(by) / per).unwrap_or(u32::MAX)
}

fn signed(number: Option<u32>) -> Option<i32> {
    number.and_then(|number| i32::try_from(number).ok())
}

fn size(kind: VolumeType, given: i32) -> Result<u64, ApiError> {
    let (name, sizes) = (kind.as_str(), kind.sizes());
    let refused = |bound: String, limit: &str| {
        let message = format!(
            "The volume size is invalid for {name} volumes: {given} GiB. {name} volumes must be {bound} GiB in size. \
             Please specify a volume size {limit} limit."
        );
        Err(ApiError::new(ErrorCode::InvalidParameterValue, message))
    };
    match u64::try_from(given) {
        Ok(size) if sizes.contains(&size) => Ok(size),
        Ok(size) if size > *sizes.end() => refused(format!("at most {}", sizes.end()), "below the maximum"),
        _ => refused(format!("at least {}", sizes.start()), "above the minimum"),
    }
}

fn provisioned_iops(kind: VolumeType, given: Option<i32>) -> Result<Option<u32>, ApiError> {
    let Some(given) = given else { return Ok(None) };
    let Some(provisioned) = kind.provisioned() else {
        return Err(ApiError::new(
            ErrorCode::InvalidParameterCombination,
            format!(
                "The parameter iops is not supported for {} volumes.",
                kind.as_str()
            ),
        ));
    };
    let (least, most) = provisioned.admitted.into_inner();
    let message = match u32::try_from(given) {
        Ok(iops) if (least..=most).contains(&iops) => return Ok(Some(iops)),
        Ok(iops) if iops > most => format!("Volume iops of {given} is too high; maximum is {most}."),
        _ => format!("Volume iops of {given} is too low; minimum is {least}."),
    };
    Err(ApiError::new(ErrorCode::InvalidParameterValue, message))
}

fn provisioned_throughput(kind: VolumeType, given: Option<i32>) -> Result<Option<u32>, ApiError> {
    let is_gp3 = kind == VolumeType::Gp3;
    let Some(given) = given else {
        return Ok(is_gp3.then_some(DEFAULT_THROUGHPUT));
    };
    if !is_gp3 {
        return Err(ApiError::new(
            ErrorCode::InvalidParameterDependency,
            format!(
                "The parameter Throughput is supported for gp3 volumes only, and not for {}.",
                kind.as_str()
            ),
        ));
    }
    let (least, most) = GP3_THROUGHPUT.into_inner();
    match u32::try_from(given) {
        Ok(throughput) if GP3_THROUGHPUT.contains(&throughput) => Ok(Some(throughput)),
        _ => Err(ApiError::new(
            ErrorCode::InvalidParameterValue,
            format!("Volume throughput of {given} MiB/s is not admitted: {least} to {most} are."),
        )),
    }
}

#[cfg(test)]
mod tests;
