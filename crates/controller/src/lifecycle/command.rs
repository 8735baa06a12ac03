//! What users may ask of an instance in which state. EC2.md 2, 4, 5.

use hearth_api::agent::instance_intent::Desired;
use hearth_api::{ApiError, ErrorCode, InstanceState};

use super::{Change, Hold, Lifecycle, Reason, ReasonChange};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Start,
    Stop { force: bool },
    Reboot,
    Terminate,
}

/// Applies a command; `None` when it asks for what is so already.
///
/// # Errors
/// `IncorrectInstanceState`, naming `instance_id` and the way out.
pub fn apply(now: &Lifecycle, command: Command, instance_id: &str) -> Result<Option<Change>, ApiError> {
    use InstanceState::{Pending, Running, ShuttingDown, Stopped, Stopping, Terminated};
    let change = match (command, now.state) {
        (Command::Start, Pending | Running) => None,
        (Command::Start, Stopped) => Some(Change {
            next: Lifecycle {
                state: Pending,
                desired: Desired::Running,
                run: now.run + 1,
                force: false,
                ..now.clone()
            },
            hold: Hold::TakeCompute,
            reason: ReasonChange::Clear,
        }),
        (Command::Start, Stopping | ShuttingDown | Terminated) => {
            return Err(refused(now, instance_id, "started"));
        }

        (Command::Stop { force }, Running) => Some(Change {
            next: Lifecycle {
                state: Stopping,
                desired: Desired::Stopped,
                force,
                ..now.clone()
            },
            hold: Hold::Keep,
            reason: ReasonChange::Set(Reason::user_initiated()),
        }),
        // The way out of a stop that hangs.
        (Command::Stop { force: true }, Stopping) if !now.force => Some(Change {
            next: Lifecycle {
                force: true,
                ..now.clone()
            },
            hold: Hold::Keep,
            reason: ReasonChange::Keep,
        }),
        (Command::Stop { .. }, Stopping | Stopped) => None,
        (Command::Stop { .. }, Pending | ShuttingDown | Terminated) => {
            return Err(refused(now, instance_id, "stopped"));
        }

        (Command::Reboot, Running) => Some(Change {
            next: Lifecycle {
                reboot: now.reboot + 1,
                ..now.clone()
            },
            hold: Hold::Keep,
            reason: ReasonChange::Keep,
        }),
        (Command::Reboot, Terminated) => None,
        (Command::Reboot, Pending | Stopping | Stopped | ShuttingDown) => {
            return Err(refused(now, instance_id, "rebooted"));
        }

        (Command::Terminate, Terminated) => None,
        // Asking again is the way out of a termination that hangs in the guest's own shutdown.
        (Command::Terminate, ShuttingDown) if !now.force => Some(Change {
            next: Lifecycle {
                force: true,
                ..now.clone()
            },
            hold: Hold::Keep,
            reason: ReasonChange::Keep,
        }),
        (Command::Terminate, ShuttingDown) => None,
        (Command::Terminate, Pending | Running | Stopping | Stopped) => Some(Change {
            next: Lifecycle {
                state: ShuttingDown,
                desired: Desired::Terminated,
                ..now.clone()
            },
            hold: Hold::Keep,
            reason: ReasonChange::Set(Reason::user_initiated()),
        }),
    };
    Ok(change)
}

fn refused(now: &Lifecycle, instance_id: &str, participle: &str) -> ApiError {
    use InstanceState::{Pending, Running, ShuttingDown, Stopped, Stopping, Terminated};
    let way_out = match now.state {
        Pending => "Wait until it runs, or terminate it.",
        Stopping => "Wait until it is stopped, or stop it with force.",
        Stopped => "Start it first.",
        ShuttingDown | Terminated => "It is gone for good: launch a new one.",
        Running => "",
    };
    ApiError::new(
        ErrorCode::IncorrectInstanceState,
        format!(
            "The instance '{instance_id}' is {} and cannot be {participle}. {way_out}",
            now.state
        ),
    )
}
