//! The life of an instance as pure rules: a command or an observation meets an instance and answers what changes.
//! Nothing here reads a clock, a row or a socket, so that the rules can be tested as a state machine.
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-lifecycle.html>

use hearth_api::InstanceState;
use hearth_api::agent::instance_intent::Desired;

mod attachment;
mod command;
mod deadline;
mod observation;
#[cfg(test)]
mod tests;

pub use attachment::{Step, observe_attachment};
pub use command::{Command, apply};
pub use deadline::{fail_start, force, give_up, stop_for_drain};
pub use observation::{End, Observed, Phase, lose_host, observe, unstart};

/// Code of the reason of a `pending` instance whose volumes are on their way to its host.
pub const MOVING: &str = "pending";

/// What the rules need to know of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lifecycle {
    pub state: InstanceState,
    pub desired: Desired,
    /// Counts starts.
    pub run: u64,
    /// Counts reboots asked for.
    pub reboot: u64,
    /// No power button: end it now.
    pub force: bool,
    /// `instance-initiated-shutdown-behavior` is `terminate`.
    pub power_off_terminates: bool,
}

impl Lifecycle {
    /// A launch that was just accepted.
    pub fn launched(power_off_terminates: bool) -> Self {
        Self {
            state: InstanceState::Pending,
            desired: Desired::Running,
            run: 1,
            reboot: 0,
            force: false,
            power_off_terminates,
        }
    }
}

/// What an instance holds changes with its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    Keep,
    /// vCPUs, memory and a public address are taken anew.
    TakeCompute,
    /// vCPUs, memory and the public address go back; disk and private address stay.
    DropCompute,
    /// Everything goes back.
    DropAll,
}

/// EC2's `StateReason`, and the sentence for `StateTransitionReason` (without its time).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    pub code: &'static str,
    pub message: String,
    pub transition: &'static str,
}

impl Reason {
    fn user_initiated() -> Self {
        Self {
            code: "Client.UserInitiatedShutdown",
            message: "Client.UserInitiatedShutdown: User initiated shutdown".into(),
            transition: "User initiated",
        }
    }

    fn instance_initiated() -> Self {
        Self {
            code: "Client.InstanceInitiatedShutdown",
            message: "Client.InstanceInitiatedShutdown: Instance initiated shutdown".into(),
            transition: "",
        }
    }

    fn internal_error(why: &str) -> Self {
        Self {
            code: "Server.InternalError",
            message: format!("Server.InternalError: {why}"),
            transition: "Server.InternalError",
        }
    }
}

/// What becomes of the reason that an instance shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReasonChange {
    Keep,
    /// It runs again: there is nothing to explain.
    Clear,
    Set(Reason),
}

/// An instance after a command or an observation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub next: Lifecycle,
    pub hold: Hold,
    pub reason: ReasonChange,
}
