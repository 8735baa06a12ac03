//! The volumes that a launch asks for: its root volume, made of the AMI, and others, blank or made of snapshots.
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/block-device-mapping-concepts.html>

use std::collections::BTreeMap;

use hearth_api::v1::{BlockDeviceMapping, EbsBlockDevice};
use hearth_api::{ApiError, ErrorCode, Id, Kind};

use crate::catalog::volume_types::{VolumeSpec, VolumeType};
use crate::services::snapshots;
use crate::services::volumes::describe::gib;
use crate::services::volumes::devices::{self, Slot};
use crate::state::{Image, State};
use crate::views::ROOT_DEVICE;

/// Mappings that make sense by themselves.
#[derive(Debug, Clone)]
pub(super) struct Mappings {
    root: EbsBlockDevice,
    /// By their devices.
    others: Vec<(String, EbsBlockDevice)>,
}

/// A volume of a launch.
#[derive(Debug, Clone)]
pub(super) struct Mapped {
    pub device: String,
    pub spec: VolumeSpec,
    pub delete_on_termination: bool,
    /// It is made of the AMI.
    pub is_root: bool,
    /// It is made of a snapshot.
    pub snapshot_id: Option<String>,
}

fn refused(message: String) -> ApiError {
    ApiError::new(ErrorCode::InvalidBlockDeviceMapping, message)
}

/// # Errors
/// What EC2 does not admit, or Hearth does not have.
pub(super) fn check(mappings: &[BlockDeviceMapping]) -> Result<Mappings, ApiError> {
    let mut devices = BTreeMap::new();
    let mut root = EbsBlockDevice::default();
    let mut others = Vec::new();
    for mapping in mappings {
        let name = &mapping.device_name;
        if name.is_empty() {
            return Err(ApiError::missing("deviceName"));
        }
        let slot = Slot::of(name);
        let is_root = slot.as_ref().is_some_and(Slot::is_root);
        match (&mapping.no_device, &mapping.ebs) {
            (Some(text), _) if !text.is_empty() => {
                return Err(ApiError::new(
                    ErrorCode::InvalidRequest,
                    "The request received was invalid: NoDevice is an empty text, or is left out.",
                ));
            }
            (Some(_), _) if is_root => {
                return Err(refused(format!(
                    "The root device {ROOT_DEVICE} cannot be left out."
                )));
            }
            // The AMI has no such device.
            (Some(_), _) => {}
            (None, ebs) if is_root => root = of_root(ebs.as_ref())?,
            (None, None) => return Err(ApiError::missing("ebs")),
            (None, Some(ebs)) => {
                check_other(ebs)?;
                others.push((name.clone(), ebs.clone()));
            }
        }
        let slot =
            slot.ok_or_else(|| refused(format!("Invalid device name {name}. {}", devices::ADMITTED)))?;
        if let Some(other) = devices.insert(slot, name) {
            return Err(refused(format!(
                "The device '{name}' is mapped twice: it is also '{other}'."
            )));
        }
    }
    devices::check_count(1 + others.len())?;
    Ok(Mappings { root, others })
}

/// What no volume has.
fn check_ebs(ebs: &EbsBlockDevice) -> Result<(), ApiError> {
    if ebs.encrypted {
        return Err(refused("Volumes cannot be encrypted in this version.".into()));
    }
    Ok(())
}

fn of_root(ebs: Option<&EbsBlockDevice>) -> Result<EbsBlockDevice, ApiError> {
    let ebs = ebs.cloned().unwrap_or_default();
    check_ebs(&ebs)?;
    if !ebs.snapshot_id.is_empty() {
        return Err(refused(format!(
            "The snapshot of the root device is the AMI's: leave '{}' out, or register an AMI of it.",
            ebs.snapshot_id
        )));
    }
    let kind = volume_type(&ebs)?;
    if !kind.boots() {
        return Err(refused(format!(
            "{} volumes cannot be boot volumes.",
            kind.as_str()
        )));
    }
    // The image's size is not known here.
    if ebs.volume_size != 0 {
        spec(&ebs, ebs.volume_size)?;
    }
    Ok(ebs)
}

fn check_other(ebs: &EbsBlockDevice) -> Result<(), ApiError> {
    check_ebs(ebs)?;
    if !ebs.snapshot_id.is_empty() {
        Id::parse(Kind::Snapshot, &ebs.snapshot_id)?;
    }
    match ebs.volume_size {
        // As large as the snapshot, which is not known here.
        0 if !ebs.snapshot_id.is_empty() => drop(volume_type(ebs)?),
        0 => return Err(ApiError::missing("size or snapshotId")),
        size => drop(spec(ebs, size)?),
    }
    Ok(())
}

/// A volume that is not made of the AMI.
///
/// # Errors
/// Its snapshot is not there, is not completed, or is larger.
fn other(state: &State, device: &str, ebs: &EbsBlockDevice) -> Result<Mapped, ApiError> {
    let mut size = ebs.volume_size;
    if !ebs.snapshot_id.is_empty() {
        let least = gib(snapshots::usable(state, &ebs.snapshot_id)?.size_gib);
        size = match size {
            0 => least,
            size if size >= least => size,
            size => {
                return Err(refused(format!(
                    "Volume of size {size}GB is smaller than snapshot '{}', expect size>= {least}GB",
                    ebs.snapshot_id
                )));
            }
        };
    }
    Ok(Mapped {
        device: device.to_owned(),
        spec: spec(ebs, size)?,
        delete_on_termination: ebs.delete_on_termination.unwrap_or(true),
        is_root: false,
        snapshot_id: Some(ebs.snapshot_id.clone()).filter(|id| !id.is_empty()),
    })
}

fn volume_type(ebs: &EbsBlockDevice) -> Result<VolumeType, ApiError> {
    match ebs.volume_type.as_str() {
        "" => Ok(VolumeType::Gp3),
        name => VolumeType::parse(name),
    }
}

fn spec(ebs: &EbsBlockDevice, size_gib: i32) -> Result<VolumeSpec, ApiError> {
    let given = |number: i32| (number != 0).then_some(number);
    VolumeSpec::new(
        volume_type(ebs)?,
        size_gib,
        given(ebs.iops),
        given(ebs.throughput),
    )
}

impl Mappings {
    /// All volumes of a launch of an image, the root volume first.
    ///
    /// # Errors
    /// A volume is too small for what it is made of, or that is not there.
    pub(super) fn of(&self, state: &State, image: &Image) -> Result<Vec<Mapped>, ApiError> {
        let least = i32::try_from(image.size.div_ceil(1 << 30)).unwrap_or(i32::MAX);
        let size = match self.root.volume_size {
            0 => least,
            size if size >= least => size,
            size => {
                return Err(refused(format!(
                    "Volume of size {size}GB is smaller than the image '{}', expect size >= {least}GB",
                    image.id
                )));
            }
        };
        let root = Mapped {
            device: ROOT_DEVICE.to_owned(),
            spec: spec(&self.root, size)?,
            delete_on_termination: self.root.delete_on_termination.unwrap_or(true),
            is_root: true,
            snapshot_id: None,
        };
        let others = self.others.iter().map(|(device, ebs)| other(state, device, ebs));
        std::iter::once(Ok(root)).chain(others).collect()
    }
}
