//! Device names: which there are, and which of them mean the same.
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/device_naming.html>

use hearth_api::{ApiError, ErrorCode};

use crate::state::{State, Volume};
use crate::views::ROOT_DEVICE;

/// Volumes of an instance, the root volume and disks of the instance store among them: the slots of its PCI bus, less those of its other devices.
pub(in crate::services) const MAX_VOLUMES: usize = 26;

/// What AMIs call their root device, without `/dev/`; all of them mean the same here.
const ROOT_NAMES: [&str; 4] = ["vda", "xvda", "sda1", "sda"];

/// The names that are admitted, in a sentence.
pub(in crate::services) const ADMITTED: &str = "Names are /dev/sd[b-z], /dev/xvd[b-z] and /dev/xvd[a-d][a-z], and /dev/sda1 or /dev/xvda for the root device.";

/// Where a device is at its instance. `/dev/sdf`, `sdf` and `/dev/xvdf` are the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot(String);

impl Slot {
    /// `None`: EBS has no such device name.
    pub(crate) fn of(name: &str) -> Option<Self> {
        let name = name.strip_prefix("/dev/").unwrap_or(name);
        if ROOT_NAMES.contains(&name) {
            return Some(Self::root());
        }
        let of_sd = name.strip_prefix("sd").filter(|letters| letters.len() == 1);
        let letters = of_sd.or_else(|| name.strip_prefix("xvd"))?;
        let is_admitted = matches!(letters.as_bytes(), [b'b'..=b'z'] | [b'a'..=b'd', b'a'..=b'z']);
        is_admitted.then(|| Self(letters.to_owned()))
    }

    fn root() -> Self {
        Self("a".to_owned())
    }

    pub(crate) fn is_root(&self) -> bool {
        *self == Self::root()
    }

    /// What the device is called from now on: the root device has one name, others that which they were given.
    pub(in crate::services) fn name(&self, given: &str) -> String {
        if self.is_root() { ROOT_DEVICE } else { given }.to_owned()
    }
}

/// # Errors
/// `InvalidParameterValue`: EBS has no such device name.
pub(super) fn slot(name: &str) -> Result<Slot, ApiError> {
    Slot::of(name).ok_or_else(|| {
        let expected = format!("{name} is not a valid EBS device name. {ADMITTED}");
        ApiError::invalid_value("device", name, expected)
    })
}

/// The volume that an instance has at a place.
pub(in crate::services) fn at<'s>(state: &'s State, instance_id: &str, slot: &Slot) -> Option<&'s Volume> {
    let is_at = |volume: &&Volume| {
        let attachment = volume.attachment.as_ref();
        attachment.is_some_and(|attachment| Slot::of(&attachment.device).as_ref() == Some(slot))
    };
    state.by(&Volume::BY_INSTANCE, instance_id).find(is_at)
}

/// The root volume of an instance, unless it was detached.
pub(in crate::services) fn root<'s>(state: &'s State, instance_id: &str) -> Option<&'s Volume> {
    at(state, instance_id, &Slot::root())
}

/// # Errors
/// `InvalidParameterValue`: the instance has no root volume.
pub(in crate::services) fn check_root(state: &State, instance_id: &str) -> Result<(), ApiError> {
    match root(state, instance_id) {
        Some(_) => Ok(()),
        None => Err(ApiError::new(
            ErrorCode::InvalidParameterValue,
            format!(
                "Invalid value '{instance_id}' for instanceId. Instance does not have a volume attached at root \
                 ({ROOT_DEVICE}). Attach one there first."
            ),
        )),
    }
}

/// # Errors
/// `AttachmentLimitExceeded`: no instance has so many volumes.
pub(in crate::services) fn check_count(count: usize) -> Result<(), ApiError> {
    if count <= MAX_VOLUMES {
        return Ok(());
    }
    Err(ApiError::new(
        ErrorCode::AttachmentLimitExceeded,
        format!(
            "An instance has at most {MAX_VOLUMES} volumes, the disks of its instance store among them; detach others first."
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names_are_ec2s() {
        for (name, slot) in [
            ("/dev/sdf", Some("f")),
            ("sdf", Some("f")),
            ("/dev/xvdf", Some("f")),
            ("xvdf", Some("f")),
            ("/dev/sdb", Some("b")),
            ("/dev/sdz", Some("z")),
            ("/dev/xvdba", Some("ba")),
            ("/dev/xvddz", Some("dz")),
            ("/dev/xvdaa", Some("aa")),
            ("/dev/xvdea", None),
            ("/dev/xvdaaa", None),
            ("/dev/sdaa", None),
            ("/dev/sdf1", None),
            ("/dev/sdF", None),
            ("/dev/sd", None),
            ("/dev/xvd", None),
            ("/dev/nvme1n1", None),
            ("/dev/vdb", None),
            ("/dev//sdf", None),
            ("/dev/sdf/../sdg", None),
            ("/dev/sdä", None),
            ("", None),
            ("/dev/sda1", Some("a")),
            ("/dev/sda", Some("a")),
            ("/dev/xvda", Some("a")),
            ("xvda", Some("a")),
            (ROOT_DEVICE, Some("a")),
        ] {
            let found = Slot::of(name);
            assert_eq!(found.as_ref().map(|slot| slot.0.as_str()), slot, "{name}");
            let is_root = found.is_some_and(|slot| slot.is_root());
            assert_eq!(is_root, slot == Some("a"), "{name}");
        }
    }
}
