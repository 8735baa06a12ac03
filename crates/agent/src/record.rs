//! What an agent remembers of an instance: the durable half of its state.
//!
//! The other half, whether a monitor lives, is never written down: it is asked of the kernel each time.

use std::collections::BTreeSet;

use hearth_api::agent::instance_intent::BootMode;
use hearth_api::agent::{InstanceObservation, RunEnd, run_end};
use serde::{Deserialize, Serialize};

/// One instance's local record. It is written *before* the deed it speaks of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub instance_id: String,
    /// The intent's `run` that the phase is about; 0 before the first.
    pub run: u64,
    /// Counts spawns, also those within one run; names the launch directory, so that what one launch
    /// left behind is never taken for another's.
    pub launch: u64,
    pub phase: Phase,
    /// The intent's `reboot` that has been carried out.
    pub reboot: u64,
    /// Microseconds from the intent's arrival to the first vCPU entry of `run`; 0 before it.
    pub start_micros: u64,
    /// The kernel's id of the boot that `launch` was made in; empty before the first launch.
    #[serde(default)]
    pub boot: String,
    /// The host was going down while `launch` ran: it was ended for that, whatever its monitor said at the end.
    #[serde(default)]
    pub interrupted: bool,
    /// Whether the last boot was by firmware; absent before the first, and where the monitor has not told.
    #[serde(default)]
    pub by_firmware: Option<bool>,
    /// Times that `run` was launched again after the host had restarted, since it last ran steadily.
    #[serde(default)]
    pub recoveries: u32,
    /// The root volume, remembered for the day when no intent names it any more; empty before the first run.
    pub volume_id: String,
    /// The other volumes that the instance was given here: their data is on this host.
    #[serde(default)]
    pub volumes: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Never started here.
    Idle,
    /// `launch` may have been spawned; the launch directory knows.
    Starting,
    /// The first vCPU of `launch` was entered.
    Entered,
    /// `run` is over.
    Ended(End),
    /// Terminated: nothing is left but what must be kept.
    Gone,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    pub cause: Cause,
    pub message: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    Requested,
    GuestPowerOff,
    MonitorDied,
    StartFailed,
    GuestCrashed,
    HostRebooted,
    /// A newer agent's, under the name that it has there.
    #[serde(untagged)]
    Other(String),
}

impl Record {
    /// Of an instance that was never started here.
    pub fn new(instance_id: &str) -> Record {
        Record {
            instance_id: instance_id.to_owned(),
            run: 0,
            launch: 0,
            phase: Phase::Idle,
            reboot: 0,
            start_micros: 0,
            boot: String::new(),
            interrupted: false,
            by_firmware: None,
            recoveries: 0,
            volume_id: String::new(),
            volumes: BTreeSet::new(),
        }
    }

    /// As the control plane hears it, but for the phase.
    pub(crate) fn observation(&self) -> InstanceObservation {
        let end = match &self.phase {
            Phase::Ended(end) => Some(end.to_message()),
            _ => None,
        };
        InstanceObservation {
            instance_id: self.instance_id.clone(),
            phase: 0,
            run: self.run,
            end,
            start_micros: self.start_micros,
            reboot: self.reboot,
            recoveries: self.recoveries,
            boot_mode: match self.by_firmware {
                None => BootMode::Unspecified,
                Some(false) => BootMode::LegacyBios,
                Some(true) => BootMode::Uefi,
            }
            .into(),
            volumes: Vec::new(),
        }
    }
}

impl End {
    pub fn new(cause: Cause, message: impl Into<String>) -> End {
        End {
            cause,
            message: message.into(),
        }
    }

    fn to_message(&self) -> RunEnd {
        let cause = match &self.cause {
            Cause::Requested => run_end::Cause::Requested,
            Cause::GuestPowerOff => run_end::Cause::GuestPowerOff,
            Cause::MonitorDied => run_end::Cause::MonitorDied,
            Cause::StartFailed => run_end::Cause::StartFailed,
            Cause::GuestCrashed => run_end::Cause::GuestCrashed,
            Cause::HostRebooted => run_end::Cause::HostRebooted,
            Cause::Other(_) => run_end::Cause::Unspecified,
        };
        RunEnd {
            cause: cause.into(),
            message: self.message.clone(),
        }
    }
}
