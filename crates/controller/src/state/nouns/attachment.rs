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
    /// How far a running instance has it.
    #[serde(default)]
    pub progress: Progress,
    /// When this progress began, in milliseconds since the epoch.
    #[serde(default)]
    pub progress_since: i64,
    /// What keeps the host from doing what is asked for; empty: nothing.
    #[serde(default)]
    pub trouble: String,
}

/// How far an attachment is made or ended. What is attached to an instance that does not run is attached or detached at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Progress {
    /// The instance has it, or will have it when it runs.
    #[default]
    Attached,
    /// The instance runs and does not have it yet.
    Attaching,
    /// The guest is asked to let it go.
    Detaching,
    /// The guest was asked to let it go and has not done so in time.
    Busy,
    /// It is taken away from the guest.
    Forced,
}

impl Progress {
    /// Whether it shall be taken away from the instance.
    pub fn is_ending(self) -> bool {
        matches!(self, Self::Detaching | Self::Busy | Self::Forced)
    }
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
            progress: Progress::Attached,
            progress_since: now,
            trouble: String::new(),
        }
    }

    pub fn set_progress(&mut self, progress: Progress, now: i64) {
        self.progress = progress;
        self.progress_since = now;
        self.trouble.clear();
    }
}
