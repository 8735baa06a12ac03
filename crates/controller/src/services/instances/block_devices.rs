//! The volumes that a launch asks for: those that the AMI has, changed as the launch says, and more, blank or made of
//! snapshots. And the disks of the instance store.
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/block-device-mapping-concepts.html>

use std::collections::BTreeMap;

use hearth_api::ApiError;
use hearth_api::v1::{BlockDeviceMapping, EbsBlockDevice};

use crate::catalog::instance_types::{InstanceType, Media};
use crate::catalog::volume_types::VolumeSpec;
use crate::services::encryption::{self, Wanted};
use crate::services::images::devices::{self, Asked, refused};
use crate::services::snapshots;
use crate::services::volumes::devices::Slot;
use crate::state::{Image, ImageDevice, Scope, Snapshot, State, StoreDisk, StoreMapping};
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
                (_, Some((_, Asked::Without | Asked::Store(_)))) | (None, None) => continue,
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
        all.sort_by_key(|volume| !volume.is_root);
        Ok(all)
    }

    /// The disks of the instance store that a launch of an image has.
    pub(super) fn store(&self, kind: &InstanceType, image: &Image) -> Vec<StoreDisk> {
        // Of these EC2 does not heed what the AMI maps.
        let of_image = match kind.name.starts_with("m3.") {
            true => &[],
            false => image.store.as_slice(),
        };
        store(kind, &devices::store_over(of_image, &self.0))
    }
}

/// The disks of the instance store that an instance of a type has: NVMe disks are there at any rate, others where they are
/// mapped. What the type does not have is not heeded.
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/add-instance-store-volumes.html>
pub(super) fn store(kind: &InstanceType, mapped: &[StoreMapping]) -> Vec<StoreDisk> {
    let Some(own) = kind.store else {
        return Vec::new();
    };
    let disk = |number: u32, device: &str| StoreDisk {
        number,
        size_gb: own.size_gb,
        device: device.to_owned(),
    };
    match own.media {
        Media::Nvme => (0..own.disks).map(|number| disk(number, "")).collect(),
        Media::Hdd | Media::Ssd => mapped
            .iter()
            .filter(|mapping| mapping.number < own.disks)
            .map(|mapping| disk(mapping.number, &mapping.device))
            .collect(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::instance_types::find;

    fn to_store(device: &str, name: &str) -> BlockDeviceMapping {
        BlockDeviceMapping {
            device_name: device.into(),
            virtual_name: name.into(),
            ..BlockDeviceMapping::default()
        }
    }

    fn without(device: &str) -> BlockDeviceMapping {
        BlockDeviceMapping {
            device_name: device.into(),
            no_device: Some(String::new()),
            ..BlockDeviceMapping::default()
        }
    }

    fn volume(device: &str) -> BlockDeviceMapping {
        BlockDeviceMapping {
            device_name: device.into(),
            ebs: Some(EbsBlockDevice {
                volume_size: 1,
                ..EbsBlockDevice::default()
            }),
            ..BlockDeviceMapping::default()
        }
    }

    /// The disks of a launch of an image that maps `ephemeral0` to `/dev/sdb` and `ephemeral1` to `/dev/sdc`.
    fn disks(kind: &str, asked: &[BlockDeviceMapping]) -> String {
        let of_image = [(0, "/dev/sdb"), (1, "/dev/sdc")].map(|(number, device)| StoreMapping {
            number,
            device: device.into(),
        });
        let image = Image {
            store: of_image.into(),
            ..crate::state::tests::an_image("ami-1")
        };
        let disks = check(asked).unwrap().store(find(kind).unwrap(), &image);
        let told = disks
            .iter()
            .map(|disk| format!("{}={}:{}", disk.number, disk.device, disk.size_gb));
        told.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_instance_store_is_what_the_type_has_and_mappings_name() {
        for (kind, asked, told) in [
            // What the type does not have is not heeded.
            ("t2.micro", vec![], ""),
            ("t2.micro", vec![to_store("/dev/sdb", "ephemeral0")], ""),
            ("m1.small", vec![], "0=/dev/sdb:160"),
            ("m1.large", vec![], "0=/dev/sdb:420 1=/dev/sdc:420"),
            (
                "m1.xlarge",
                vec![to_store("/dev/sdd", "ephemeral3")],
                "0=/dev/sdb:420 1=/dev/sdc:420 3=/dev/sdd:420",
            ),
            (
                "m1.xlarge",
                vec![to_store("/dev/sdd", "ephemeral4")],
                "0=/dev/sdb:420 1=/dev/sdc:420",
            ),
            // The launch's word goes before the image's: of the disk, and of the place.
            (
                "m1.large",
                vec![to_store("/dev/sdf", "ephemeral0")],
                "0=/dev/sdf:420 1=/dev/sdc:420",
            ),
            ("m1.large", vec![to_store("xvdb", "ephemeral1")], "1=xvdb:420"),
            ("m1.large", vec![without("/dev/xvdb")], "1=/dev/sdc:420"),
            ("m1.large", vec![volume("/dev/sdc")], "0=/dev/sdb:420"),
            // Of these the launch's alone.
            ("m3.medium", vec![], ""),
            (
                "m3.medium",
                vec![to_store("/dev/sdb", "ephemeral0")],
                "0=/dev/sdb:4",
            ),
            // NVMe disks are there at any rate, and have no names.
            ("m5d.large", vec![], "0=:75"),
            (
                "m5d.4xlarge",
                vec![without("/dev/sdb"), to_store("/dev/sdf", "ephemeral9")],
                "0=:300 1=:300",
            ),
        ] {
            assert_eq!(disks(kind, &asked), told, "{kind} {asked:?}");
        }
    }

    #[test]
    fn mappings_of_the_instance_store_are_refused_where_they_say_two_things() {
        let both = BlockDeviceMapping {
            virtual_name: "ephemeral0".into(),
            ..volume("/dev/sdb")
        };
        for asked in [
            vec![to_store("/dev/sdb", "ephemeral24")],
            vec![to_store("/dev/sdb", "ephemeral")],
            vec![to_store("/dev/sdb", "ephemeral00")],
            vec![to_store("/dev/sdb", "ephemeral+1")],
            vec![to_store("/dev/sdb", "ephemeral-1")],
            vec![to_store("/dev/sdb", "swap")],
            vec![to_store("/dev/nvme1n1", "ephemeral0")],
            vec![to_store("/dev/sda1", "ephemeral0")],
            vec![
                to_store("/dev/sdb", "ephemeral0"),
                to_store("/dev/sdc", "ephemeral0"),
            ],
            vec![
                to_store("/dev/sdb", "ephemeral0"),
                to_store("/dev/xvdb", "ephemeral1"),
            ],
            vec![to_store("/dev/sdb", "ephemeral0"), volume("/dev/sdb")],
            vec![both],
        ] {
            let refused = check(&asked).unwrap_err();
            assert_eq!(
                refused.code,
                hearth_api::ErrorCode::InvalidBlockDeviceMapping,
                "{asked:?}"
            );
        }
        assert!(check(&[to_store("/dev/sdy", "ephemeral23")]).is_ok());
    }
}
