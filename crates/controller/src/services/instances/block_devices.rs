//! The volumes that a launch asks for: its root volume, made of the AMI, and blank ones.
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/block-device-mapping-concepts.html>

use std::collections::BTreeMap;

use hearth_api::v1::{BlockDeviceMapping, EbsBlockDevice};
use hearth_api::{ApiError, ErrorCode};

use crate::catalog::volume_types::{VolumeSpec, VolumeType};
use crate::services::volumes::devices::{self, Slot};
use crate::state::Image;
use crate::views::ROOT_DEVICE;

/// Mappings that make sense by themselves.
#[derive(Debug, Clone)]
pub(super) struct Mappings {
    root: EbsBlockDevice,
    blank: Vec<Mapped>,
}

/// A volume of a launch.
#[derive(Debug, Clone)]
pub(super) struct Mapped {
    pub device: String,
    pub spec: VolumeSpec,
    pub delete_on_termination: bool,
    /// It is made of the AMI.
    pub is_root: bool,
}

fn refused(message: String) -> ApiError {
    ApiError::new(ErrorCode::InvalidBlockDeviceMapping, message)
}

/// # Errors
/// What EC2 does not admit, or Hearth does not have.
pub(super) fn check(mappings: &[BlockDeviceMapping]) -> Result<Mappings, ApiError> {
    let mut devices = BTreeMap::new();
    let mut root = EbsBlockDevice::default();
    let mut blank = Vec::new();
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
            (None, Some(ebs)) => blank.push(of_blank(name, ebs)?),
        }
        let slot =
            slot.ok_or_else(|| refused(format!("Invalid device name {name}. {}", devices::ADMITTED)))?;
        if let Some(other) = devices.insert(slot, name) {
            return Err(refused(format!(
                "The device '{name}' is mapped twice: it is also '{other}'."
            )));
        }
    }
    devices::check_count(1 + blank.len())?;
    Ok(Mappings { root, blank })
}

/// What no volume has.
fn check_ebs(ebs: &EbsBlockDevice) -> Result<(), ApiError> {
    if ebs.encrypted {
        return Err(refused("Volumes cannot be encrypted in this version.".into()));
    }
    if !ebs.snapshot_id.is_empty() {
        return Err(refused(format!(
            "There are no snapshots in this version, and '{}' is one: name a size, and leave the snapshot out.",
            ebs.snapshot_id
        )));
    }
    Ok(())
}

fn of_root(ebs: Option<&EbsBlockDevice>) -> Result<EbsBlockDevice, ApiError> {
    let ebs = ebs.cloned().unwrap_or_default();
    check_ebs(&ebs)?;
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

fn of_blank(device: &str, ebs: &EbsBlockDevice) -> Result<Mapped, ApiError> {
    check_ebs(ebs)?;
    if ebs.volume_size == 0 {
        return Err(ApiError::missing("size or snapshotId"));
    }
    Ok(Mapped {
        device: device.to_owned(),
        spec: spec(ebs, ebs.volume_size)?,
        delete_on_termination: ebs.delete_on_termination.unwrap_or(true),
        is_root: false,
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
    /// The root volume is too small for the image.
    pub(super) fn of(&self, image: &Image) -> Result<Vec<Mapped>, ApiError> {
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
        };
        Ok(std::iter::once(root).chain(self.blank.iter().cloned()).collect())
    }
}
