//! What becomes of an instance without a call of its user: a transitional state lasted too long, or the host is drained.
//! These change what is wanted, never what is: an instance is `stopped` or `terminated` when its host has said so.

use hearth_api::InstanceState;
use hearth_api::agent::instance_intent::Desired;

use super::{Change, Hold, Lifecycle, Reason, ReasonChange};

/// A `pending` instance did not run in time: a launch is terminated, and a start is stopped, as in EC2. `None` in any other
/// state.
pub fn give_up(now: &Lifecycle, minutes: u64) -> Option<Change> {
    if now.state != InstanceState::Pending {
        return None;
    }
    let (state, desired) = match now.run {
        1 => (InstanceState::ShuttingDown, Desired::Terminated),
        _ => (InstanceState::Stopping, Desired::Stopped),
    };
    Some(Change {
        next: Lifecycle {
            state,
            desired,
            force: true,
            ..now.clone()
        },
        hold: Hold::Keep,
        reason: ReasonChange::Set(Reason::internal_error(&format!(
            "The instance did not run within {minutes} minutes"
        ))),
    })
}

/// A `pending` instance that waits for a volume does not get it: its host has not been told of the run, and says that it is
/// over. `None` in any other state.
pub fn fail_start(now: &Lifecycle, why: &str) -> Option<Change> {
    (now.state == InstanceState::Pending).then(|| Change {
        next: Lifecycle {
            state: InstanceState::Stopping,
            desired: Desired::Stopped,
            force: true,
            ..now.clone()
        },
        hold: Hold::Keep,
        reason: ReasonChange::Set(Reason::internal_error(why)),
    })
}

/// A `stopping` or `shutting-down` instance did not end in time: its guest is not asked any longer. `None` if it is not to
/// be asked already, and in any other state.
pub fn force(now: &Lifecycle) -> Option<Change> {
    let ends = matches!(now.state, InstanceState::Stopping | InstanceState::ShuttingDown);
    (ends && !now.force).then(|| Change {
        next: Lifecycle {
            force: true,
            ..now.clone()
        },
        hold: Hold::Keep,
        reason: ReasonChange::Keep,
    })
}

/// A running instance of a host that is drained of its instances. `None` in any other state.
pub fn stop_for_drain(now: &Lifecycle) -> Option<Change> {
    (now.state == InstanceState::Running).then(|| Change {
        next: Lifecycle {
            state: InstanceState::Stopping,
            desired: Desired::Stopped,
            force: false,
            ..now.clone()
        },
        hold: Hold::Keep,
        reason: ReasonChange::Set(Reason {
            code: "Server.ScheduledStop",
            message: "Server.ScheduledStop: Stopped because the instance's host is drained".into(),
            transition: "Server.ScheduledStop",
        }),
    })
}
