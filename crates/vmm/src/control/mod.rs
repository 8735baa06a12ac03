//! The control protocol of a running monitor.
//!
//! A client connects to the monitor's Unix stream socket and exchanges lines of JSON: it sends
//! [`Request`]s and gets one [`Message::Reply`] for each, in order; [`Message::Event`]s come in between
//! whenever they happen. Nobody hears of what happened before they connected: [`Request::Status`] says how things
//! are. Several clients may be connected. A client that does not read is dropped, and so is one whose line is
//! longer than [`LINE_LIMIT`].
//!
//! A request that needs descriptors brings them along as `SCM_RIGHTS`: its line, newline included, is sent by
//! one `sendmsg` that carries them all, at most [`DESCRIPTOR_LIMIT`]. Where a request names a descriptor by
//! number, it means its place among those, from 0. What a request does not name is closed.
//!
//! The next request of a client is read once the one before it is answered. What is no request gets
//! [`Reply::Error`], which says what is allowed.

mod client;
mod socket;

pub use client::Client;
pub use socket::{DESCRIPTOR_LIMIT, receive, send};

use std::os::fd::RawFd;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::limits::RateLimit;
use crate::metrics::Report;
use crate::snapshot::Kind;
use crate::spec::{DiskSpec, NicSpec};
pub use crate::virtio::balloon::BalloonStatus;

/// Bytes of a request's line.
pub const LINE_LIMIT: usize = 16 << 10;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    Status,
    /// Asks for what has been counted so far; nothing stops for it.
    Metrics,
    /// Asks what is attached.
    Devices,
    /// Attaches a disk to the running machine, and for its boots to come.
    AttachDisk(DiskSpec),
    AttachNic(NicSpec),
    /// Gives a NIC another TAP, for its own was deleted. The guest notices that time has passed and packets are lost.
    ReplaceTap {
        device: String,
        /// As many as the NIC has queues; see [`NicSpec::tap_fds`].
        tap_fds: Vec<RawFd>,
    },
    /// Detaches a device. The guest is asked to let it go, and [`Event::DeviceDetached`] says when it has; it can
    /// be asked again. With `force` the device is gone at once, whatever the guest thinks of it. Of a disk the guest keeps
    /// a device `gone-SLOT` that fails all requests, until it lets that go or resets.
    Detach {
        device: String,
        #[serde(default)]
        force: bool,
    },
    /// Has a disk take on the size that its file (of an overlay, the data file) was given, and tells the guest;
    /// [`Reply::Resized`]. An overlay only grows.
    Resize {
        device: String,
    },
    /// Stops the vCPUs and the devices, until [`Self::Resume`].
    Pause,
    Resume,
    /// Asks what is known of the balloon.
    Balloon,
    /// Sets how many MiB the guest shall give up; the driver does it when it can.
    SetBalloonTarget {
        mib: u64,
    },
    /// Asks the guest for fresh statistics of its memory; [`Event::BalloonStatistics`] brings them, if it answers.
    RefreshBalloonStatistics,
    /// Writes a snapshot to two files that come along. A machine that runs is paused meanwhile, one that is paused
    /// stays so. Answered with [`Reply::Snapshot`] when both files are on the disk.
    Snapshot(SnapshotRequest),
    /// Keeps what disks hold now, while they are written, until [`Self::Thaw`]; [`Reply::Frozen`]. The machine is paused for
    /// that moment, so that the disks are as after a power cut. A disk that is frozen under the same name stays as it is.
    Freeze(Vec<FreezeSpec>),
    /// Keeps nothing any more of the point in time of this name, if there is one.
    Thaw {
        device: String,
        name: String,
    },
    /// Limits a disk or the entropy device from now on.
    SetRateLimit {
        device: String,
        limit: RateLimit,
    },
    /// Limits a NIC from now on, for each direction as the guest sees it.
    SetNicRateLimits {
        device: String,
        receive: RateLimit,
        transmit: RateLimit,
    },
    /// Presses the ACPI power button.
    PowerButton,
    /// Pulls the reset line: a fresh boot in the same process, with the same disks and NICs.
    Reset,
    /// Ends the machine at once; disks are flushed first.
    Stop,
}

impl Request {
    /// What a client may ask for, by its name on the wire.
    pub const NAMES: &[&str] = &[
        "status",
        "metrics",
        "devices",
        "attach_disk",
        "attach_nic",
        "replace_tap",
        "detach",
        "resize",
        "pause",
        "resume",
        "balloon",
        "set_balloon_target",
        "refresh_balloon_statistics",
        "snapshot",
        "freeze",
        "thaw",
        "set_rate_limit",
        "set_nic_rate_limits",
        "power_button",
        "reset",
        "stop",
    ];
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    Reply(Reply),
    Event(Event),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    Status(Status),
    Metrics(Report),
    Balloon(BalloonStatus),
    Devices(Vec<DeviceStatus>),
    /// The disk's size now, in bytes.
    Resized {
        bytes: u64,
    },
    Snapshot(SnapshotTaken),
    Frozen {
        /// How long neither vCPUs nor devices worked.
        paused_micros: u64,
    },
    Ok,
    Error {
        message: String,
    },
}

/// A disk that is to be frozen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FreezeSpec {
    pub device: String,
    /// Of the point in time: the snapshot's id.
    pub name: String,
    /// An empty file, opened for reading and writing, for `hearth_block::overlay::frozen`.
    pub frozen: RawFd,
    /// A `hearth_block::overlay::dirty` without marks: where it is noted what is written from now on.
    pub dirty: RawFd,
}

/// Which snapshot to make, and where to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotRequest {
    pub kind: Kind,
    /// The state file's descriptor, opened for reading and writing; what is in it is replaced.
    pub state: RawFd,
    /// The memory file's, of a file system with sparse files.
    pub memory: RawFd,
}

/// A snapshot that is on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotTaken {
    pub id: Uuid,
    /// The one that a diff is a diff to.
    pub base: Option<Uuid>,
    /// How long neither vCPUs nor devices worked.
    pub paused_micros: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub instance_id: String,
    pub state: VmState,
    /// Boots of this process: 1 after the start, one more for each reset by whomever.
    pub boots: u64,
    /// Microseconds from the process's start to the first vCPU entry of the first boot; 0 before it.
    pub first_entry_micros: u64,
    /// Whether the machine was last booted by firmware, and not by entering a kernel; absent before the first boot, and from
    /// monitors that do not know it.
    #[serde(default)]
    pub by_firmware: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceStatus {
    pub device: String,
    /// As in [`crate::metrics::DeviceReport::kind`].
    pub kind: String,
    /// On PCI bus 0.
    pub slot: u8,
    /// The guest was asked to let it go and has not done so yet.
    pub leaving: bool,
    /// The guest of a snapshot still has the snapshot's NIC, which leads nowhere, and was asked to let it go;
    /// [`Event::DeviceReplaced`] comes then.
    #[serde(default)]
    pub replacing: bool,
    /// Of a disk; absent of other devices, and from monitors that do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskStatus>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStatus {
    /// That the guest sees.
    pub size_bytes: u64,
    pub rate_limit: RateLimit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VmState {
    /// Being built.
    Starting,
    /// A vCPU has been entered.
    Running,
    /// No vCPU runs and no device works, until it is resumed.
    Paused,
    /// On its way out.
    Ending,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The first vCPU of boot number `boots` was entered.
    Entered {
        boots: u64,
        first_entry_micros: u64,
        /// As in [`Status::by_firmware`].
        #[serde(default)]
        by_firmware: Option<bool>,
    },
    /// The guest (or a client) reset the machine; boot number `boots` comes next.
    Reset { boots: u64 },
    /// A device that was to be detached is gone, and its descriptors are closed.
    DeviceDetached { device: String },
    /// The guest of a snapshot has let the snapshot's NIC go and was given this one, its own, in the same slot.
    DeviceReplaced { device: String },
    /// Statistics that a client asked for have come from the guest.
    BalloonStatistics(BalloonStatus),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_that_serde_knows() {
        let error = serde_json::from_str::<Request>("\"no such request\"").unwrap_err();
        let names: Vec<_> = Request::NAMES.iter().map(|name| format!("`{name}`")).collect();
        let names = names.join(", ");
        assert!(
            error.to_string().contains(&names),
            "{error}, but NAMES are {names}"
        );
    }
}
