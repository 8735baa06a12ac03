//! Which instance has a volume or a network interface. Both exist without one.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    pub instance_id: String,
    /// A volume's name for the guest, such as `/dev/vda`; the number of an interface, `0` for the primary one.
    pub device: String,
    /// What is attached goes with the instance.
    pub delete_on_termination: bool,
    /// Milliseconds since the epoch.
    pub attached_at: i64,
    /// Counts the attachments of what is attached, from 1. A host that holds one gives way to a later one only.
    pub epoch: u64,
}

/// The device of an instance's primary interface.
pub const PRIMARY: &str = "0";

impl Attachment {
    /// The first of what an instance is launched with.
    pub fn first(instance_id: &str, device: &str, delete_on_termination: bool, now: i64) -> Self {
        Self {
            instance_id: instance_id.to_owned(),
            device: device.to_owned(),
            delete_on_termination,
            attached_at: now,
            epoch: 1,
        }
    }
}
