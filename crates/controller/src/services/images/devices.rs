//! Block devices of images, as requests name them and as they are told.

use std::collections::BTreeMap;

use hearth_api::v1::{BlockDeviceMapping, EbsBlockDevice};
use hearth_api::{ApiError, ErrorCode, Id, Kind};

use crate::catalog::instance_types::MAX_DISKS;
use crate::catalog::volume_types::{VolumeSpec, VolumeType};
use crate::services::snapshots;
use crate::services::volumes::describe::{gib, signed};
use crate::services::volumes::devices::{self, Slot};
use crate::state::{Image, ImageDevice, Snapshot, State, StoreMapping};

pub(in crate::services) fn refused(message: String) -> ApiError {
    ApiError::new(ErrorCode::InvalidBlockDeviceMapping, message)
}

/// What a request says of a device.
#[derive(Debug, Clone)]
pub(in crate::services) enum Asked {
    /// There is no such device.
    Without,
    Ebs(EbsBlockDevice),
    /// The disk of the instance store with this number.
    Store(u32),
}

/// The devices that a request names, each once, by where they are; with their names.
///
/// # Errors
/// A name is missing, is none, or is there twice.
pub(in crate::services) fn asked(
    mappings: &[BlockDeviceMapping],
) -> Result<BTreeMap<Slot, (String, Asked)>, ApiError> {
    let mut asked: BTreeMap<Slot, (String, Asked)> = BTreeMap::new();
    for mapping in mappings {
        let name = &mapping.device_name;
        if name.is_empty() {
            return Err(ApiError::missing("deviceName"));
        }
        let slot = Slot::of(name);
        let is_root = slot.as_ref().is_some_and(Slot::is_root);
        let store = match mapping.virtual_name.as_str() {
            "" => None,
            name => Some(store_number(name)?),
        };
        let what = match (&mapping.no_device, &mapping.ebs, store) {
            (Some(text), ..) if !text.is_empty() => {
                return Err(ApiError::new(
                    ErrorCode::InvalidRequest,
                    "The request received was invalid: NoDevice is an empty text, or is left out.",
                ));
            }
            (Some(_), ..) if is_root => {
                return Err(refused(format!("The root device {name} cannot be left out.")));
            }
            (Some(_), ..) => Asked::Without,
            (None, Some(_), Some(_)) => {
                return Err(refused(format!(
                    "The device '{name}' is a volume or a disk of the instance store: leave Ebs or VirtualName out."
                )));
            }
            (None, None, Some(_)) if is_root => {
                return Err(refused(format!(
                    "The root device {name} is a volume: leave VirtualName out."
                )));
            }
            (None, None, Some(number)) => Asked::Store(number),
            (None, Some(ebs), None) => Asked::Ebs(ebs.clone()),
            (None, None, None) if is_root => Asked::Ebs(EbsBlockDevice::default()),
            (None, None, None) => return Err(ApiError::missing("ebs")),
        };
        if let Asked::Ebs(ebs) = &what {
            check(ebs, is_root)?;
        }
        let Some(slot) = slot else {
            // What a request lacks is said before what is wrong with it.
            return Err(match &what {
                Asked::Ebs(ebs) if ebs.volume_size == 0 && ebs.snapshot_id.is_empty() => {
                    ApiError::missing("size or snapshotId")
                }
                _ => refused(format!("Invalid device name {name}. {}", devices::ADMITTED)),
            });
        };
        let is_store = |other: &Asked| matches!((other, &what), (Asked::Store(a), Asked::Store(b)) if a == b);
        if let Some((other, _)) = asked.values().find(|(_, other)| is_store(other)) {
            return Err(refused(format!(
                "The disk '{}' of the instance store is mapped twice: to '{other}' and '{name}'.",
                mapping.virtual_name
            )));
        }
        if let Some((other, _)) = asked.insert(slot, (name.clone(), what)) {
            return Err(refused(format!(
                "The device '{name}' is mapped twice: it is also '{other}'."
            )));
        }
    }
    let named = asked.values().filter(|(_, what)| matches!(what, Asked::Ebs(_)));
    let is_root = |slot: &Slot| slot.is_root();
    devices::check_count(named.count() + usize::from(!asked.keys().any(is_root)))?;
    Ok(asked)
}

/// Of a disk of the instance store, by its virtual name.
///
/// # Errors
/// It is no such name.
fn store_number(name: &str) -> Result<u32, ApiError> {
    let number = name.strip_prefix("ephemeral").and_then(|digits| {
        let number: u32 = digits.parse().ok()?;
        (number < MAX_DISKS && digits == number.to_string()).then_some(number)
    });
    number.ok_or_else(|| {
        refused(format!(
            "Invalid virtual name '{name}'. Names are ephemeral0 to ephemeral{}.",
            MAX_DISKS - 1
        ))
    })
}

/// The virtual name of a disk of the instance store.
pub(in crate::services) fn virtual_name(number: u32) -> String {
    format!("ephemeral{number}")
}

/// What a request maps of the instance store, over what there was: each place and each disk once.
pub(in crate::services) fn store_over(
    before: &[StoreMapping],
    asked: &BTreeMap<Slot, (String, Asked)>,
) -> Vec<StoreMapping> {
    let mapped = asked.values().filter_map(|(name, what)| match what {
        Asked::Store(number) => Some(StoreMapping {
            number: *number,
            device: name.clone(),
        }),
        Asked::Without | Asked::Ebs(_) => None,
    });
    let mut mapped: Vec<StoreMapping> = mapped.collect();
    let is_free = |own: &&StoreMapping| !Slot::of(&own.device).is_some_and(|slot| asked.contains_key(&slot));
    for own in before.iter().filter(is_free) {
        if !mapped.iter().any(|other| other.number == own.number) {
            mapped.push(own.clone());
        }
    }
    mapped.sort();
    mapped
}

/// What can be said without looking at anything else.
fn check(ebs: &EbsBlockDevice, is_root: bool) -> Result<(), ApiError> {
    if !ebs.snapshot_id.is_empty() {
        Id::parse(Kind::Snapshot, &ebs.snapshot_id)?;
    }
    let kind = volume_type(ebs)?;
    if is_root && !kind.boots() {
        return Err(refused(format!(
            "{} volumes cannot be boot volumes.",
            kind.as_str()
        )));
    }
    // 0: it follows from what the volume is made of.
    if ebs.volume_size != 0 {
        spec(ebs, ebs.volume_size)?;
    }
    Ok(())
}

fn volume_type(ebs: &EbsBlockDevice) -> Result<VolumeType, ApiError> {
    match ebs.volume_type.as_str() {
        "" => Ok(VolumeType::Gp3),
        name => VolumeType::parse(name),
    }
}

/// # Errors
/// There is no such volume.
pub(in crate::services) fn spec(ebs: &EbsBlockDevice, size_gib: i32) -> Result<VolumeSpec, ApiError> {
    let given = |number: i32| (number != 0).then_some(number);
    VolumeSpec::new(
        volume_type(ebs)?,
        size_gib,
        given(ebs.iops),
        given(ebs.throughput),
    )
}

/// GiB of a volume that a request describes, and which is made of a snapshot or blank.
///
/// # Errors
/// It is smaller than the snapshot, or none is given.
pub(in crate::services) fn size(ebs: &EbsBlockDevice, snapshot: Option<&Snapshot>) -> Result<i32, ApiError> {
    match (ebs.volume_size, snapshot) {
        (0, None) => Err(ApiError::missing("size or snapshotId")),
        (0, Some(snapshot)) => Ok(gib(snapshot.size_gib)),
        (size, Some(snapshot)) if size < gib(snapshot.size_gib) => Err(refused(format!(
            "Volume of size {size}GB is smaller than snapshot '{}', expect size>= {}GB",
            snapshot.id, snapshot.size_gib
        ))),
        (size, _) => Ok(size),
    }
}

/// The snapshot that a request names for a device of an image: completed, and the caller's own.
///
/// # Errors
/// `InvalidSnapshot.NotFound`, `IncorrectState`, `AuthFailure`.
pub(super) fn snapshot<'s>(state: &'s State, ebs: &EbsBlockDevice) -> Result<Option<&'s Snapshot>, ApiError> {
    if ebs.snapshot_id.is_empty() {
        return Ok(None);
    }
    snapshots::usable(state, &ebs.snapshot_id)?;
    snapshots::own(state, &ebs.snapshot_id).map(Some)
}

/// A device of an image, as a request describes it.
///
/// # Errors
/// There is no such volume.
pub(super) fn device(
    name: &str,
    ebs: &EbsBlockDevice,
    snapshot: Option<&Snapshot>,
) -> Result<ImageDevice, ApiError> {
    let size = size(ebs, snapshot)?;
    let spec = spec(ebs, size)?;
    let given = |number: i32| u32::try_from(number).ok().filter(|number| *number != 0);
    if !ebs.kms_key_id.is_empty() {
        return Err(refused(
            "The parameter KmsKeyId is not supported for images: name the key in the launch.".to_owned(),
        ));
    }
    if snapshot.is_some() && ebs.encrypted.is_some() {
        return Err(refused(format!(
            "the encrypted flag cannot be specified since device {name} has a snapshot specified."
        )));
    }
    Ok(ImageDevice {
        device: name.to_owned(),
        snapshot_id: snapshot.map(|snapshot| snapshot.id.clone()),
        encrypted: ebs.encrypted.unwrap_or(false),
        size_gib: spec.size_gib,
        volume_type: spec.volume_type,
        iops: given(ebs.iops),
        throughput: given(ebs.throughput),
        delete_on_termination: ebs.delete_on_termination.unwrap_or(true),
    })
}

/// As a request would describe it.
pub(in crate::services) fn ebs(device: &ImageDevice) -> EbsBlockDevice {
    EbsBlockDevice {
        delete_on_termination: Some(device.delete_on_termination),
        iops: signed(device.iops),
        snapshot_id: device.snapshot_id.clone().unwrap_or_default(),
        volume_size: gib(device.size_gib),
        volume_type: device.volume_type.as_str().into(),
        throughput: signed(device.throughput),
        encrypted: device.encrypted.then_some(true),
        kms_key_id: String::new(),
    }
}

pub(super) fn tell(state: &State, image: &Image) -> Vec<BlockDeviceMapping> {
    let told = |device: &ImageDevice| {
        let snapshot = device.snapshot_id.as_deref();
        let snapshot = snapshot.and_then(|id| state.of_anybody::<Snapshot>(id));
        let encrypted = device.encrypted || snapshot.is_some_and(|snapshot| snapshot.encryption.is_some());
        BlockDeviceMapping {
            device_name: device.device.clone(),
            ebs: Some(EbsBlockDevice {
                encrypted: Some(encrypted),
                ..ebs(device)
            }),
            ..BlockDeviceMapping::default()
        }
    };
    let store = image.store.iter().map(|mapping| BlockDeviceMapping {
        device_name: mapping.device.clone(),
        virtual_name: virtual_name(mapping.number),
        ..BlockDeviceMapping::default()
    });
    image.devices.iter().map(told).chain(store).collect()
}

/// What is asked for, and where nothing is, what there was. A number of IOPS or a throughput goes with its volume type.
pub(in crate::services) fn over(before: &EbsBlockDevice, asked: &EbsBlockDevice) -> EbsBlockDevice {
    let mut over = before.clone();
    if !asked.volume_type.is_empty() && asked.volume_type != before.volume_type {
        over.volume_type.clone_from(&asked.volume_type);
        (over.iops, over.throughput) = (0, 0);
    }
    over.encrypted = asked.encrypted.or(before.encrypted);
    over.kms_key_id.clone_from(&asked.kms_key_id);
    over.delete_on_termination = asked.delete_on_termination.or(before.delete_on_termination);
    for (over, asked) in [
        (&mut over.iops, asked.iops),
        (&mut over.throughput, asked.throughput),
        (&mut over.volume_size, asked.volume_size),
    ] {
        if asked != 0 {
            *over = asked;
        }
    }
    if !asked.snapshot_id.is_empty() {
        over.snapshot_id.clone_from(&asked.snapshot_id);
    }
    over
}
