//! The volumes that a launch asks for: those that the AMI has, changed as the launch says, and more, blank or made of
//! snapshots.
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/block-device-mapping-concepts.html>

use std::collections::BTreeMap;

use hearth_api::ApiError;
use hearth_api::v1::{BlockDeviceMapping, EbsBlockDevice};

use crate::catalog::volume_types::VolumeSpec;
use crate::services::encryption::{self, Wanted};
use crate::services::images::devices::{self, Asked, refused};
use crate::services::snapshots;
use crate::services::volumes::devices::{Slot, check_count};
use crate::state::{Image, ImageDevice, Scope, Snapshot, State};
use crate::views::ROOT_DEVICE;

/// Mappings that make sense by themselves.
#[derive(Debug, Clone)]
pub(super) struct Mappings(BTreeMap<Slot, (String, Asked)>);

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
    pub encryption: Wanted,
}

/// # Errors
/// What EC2 does not admit, or Hearth does not have.
pub(super) fn check(mappings: &[BlockDeviceMapping]) -> Result<Mappings, ApiError> {
    let asked = devices::asked(mappings)?;
    for (slot, (_, what)) in &asked {
        let Asked::Ebs(ebs) = what else { continue };
        if slot.is_root() && !ebs.snapshot_id.is_empty() {
            return Err(refused(format!(
                "The snapshot of the root device is the AMI's: leave '{}' out, or register an AMI of it.",
                ebs.snapshot_id
            )));
        }
    }
    Ok(Mappings(asked))
}

impl Mappings {
    /// All volumes of a launch of an image, the root volume first.
    ///
    /// # Errors
    /// There are too many, or one is too small for what it is made of, or that is not there.
    pub(super) fn of(&self, state: &State, scope: &Scope, image: &Image) -> Result<Vec<Mapped>, ApiError> {
        let mut of_image: BTreeMap<Slot, &ImageDevice> = BTreeMap::new();
        for device in &image.devices {
            of_image.extend(Slot::of(&device.device).map(|slot| (slot, device)));
        }
        let mut all = Vec::new();
        for slot in of_image
            .keys()
            .chain(self.0.keys().filter(|slot| !of_image.contains_key(slot)))
        {
            let own = of_image.get(slot);
            let mapped = match (own, self.0.get(slot)) {
                (_, Some((_, Asked::Without))) | (None, None) => continue,
                (Some(own), None) => mapped(
                    (state, scope),
                    slot,
                    &own.device,
                    &devices::ebs(own),
                    own.snapshot_id.as_deref(),
                ),
                (Some(own), Some((name, Asked::Ebs(asked)))) => {
                    let over = devices::over(&devices::ebs(own), asked);
                    let is_own = asked.snapshot_id.is_empty();
                    let of_image = own.snapshot_id.as_deref().filter(|_| is_own);
                    mapped((state, scope), slot, name, &over, of_image)
                }
                (None, Some((name, Asked::Ebs(asked)))) => mapped((state, scope), slot, name, asked, None),
            };
            all.push(mapped?);
        }
        check_count(all.len())?;
        all.sort_by_key(|volume| !volume.is_root);
        Ok(all)
    }
}

/// `of_image`: the snapshot that is the image's to give, whoever it belongs to.
fn mapped(
    (state, scope): (&State, &Scope),
    slot: &Slot,
    name: &str,
    ebs: &EbsBlockDevice,
    of_image: Option<&str>,
) -> Result<Mapped, ApiError> {
    let snapshot = match (of_image, ebs.snapshot_id.as_str()) {
        (Some(id), _) => state.of_anybody::<Snapshot>(id),
        (None, "") => None,
        (None, id) => Some(snapshots::usable(state, id)?),
    };
    let is_root = slot.is_root();
    let asked = encryption::Asked {
        encrypted: ebs.encrypted,
        kms_key_id: &ebs.kms_key_id,
    };
    let source = snapshot.and_then(|snapshot| snapshot.encryption.as_ref());
    Ok(Mapped {
        encryption: encryption::wanted(state, scope, asked, source)?,
        device: if is_root { ROOT_DEVICE } else { name }.to_owned(),
        spec: devices::spec(ebs, devices::size(ebs, snapshot)?)?,
        delete_on_termination: ebs.delete_on_termination.unwrap_or(true),
        is_root,
        snapshot_id: snapshot.map(|snapshot| snapshot.id.clone()).filter(|_| !is_root),
    })
}
