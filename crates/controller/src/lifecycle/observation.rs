//! What an agent's report says about an instance's state. Reports are level-triggered: the same one may come many
//! times, and one about an older run may still come after a newer one was asked for. Silence says nothing.

use hearth_api::InstanceState;
use hearth_api::agent::instance_intent::Desired;

use super::{Change, Hold, Lifecycle, Reason, ReasonChange};

/// Why a run is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Requested,
    GuestPowerOff,
    MonitorDied,
    StartFailed,
    GuestCrashed,
    HostRebooted,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    Starting,
    Running,
    Stopping,
    Ended { end: End, message: String },
    Gone,
}

/// One instance in an agent's report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    pub run: u64,
    pub phase: Phase,
}

impl Observed {
    /// Nothing is left of an instance.
    pub fn gone() -> Self {
        Self {
            run: 0,
            phase: Phase::Gone,
        }
    }
}

/// Applies an observation; `None` when it says nothing new.
pub fn observe(now: &Lifecycle, observed: &Observed) -> Option<Change> {
    use InstanceState::{Pending, Running, ShuttingDown, Stopped, Stopping, Terminated};
    if observed.phase == Phase::Gone {
        // Whichever run it was: nothing is left. Without the order to terminate it is no end of ours (law 5).
        return (now.state == ShuttingDown).then(|| Change {
            next: Lifecycle {
                state: Terminated,
                ..now.clone()
            },
            hold: Hold::DropAll,
            reason: ReasonChange::Keep,
        });
    }
    if observed.run != now.run {
        return None;
    }
    match (&observed.phase, now.state) {
        (Phase::Running, Pending) => Some(Change {
            next: Lifecycle {
                state: Running,
                ..now.clone()
            },
            hold: Hold::Keep,
            reason: ReasonChange::Clear,
        }),
        (Phase::Ended { end, message }, Pending | Running) => Some(ended(now, *end, message)),
        (Phase::Ended { .. }, Stopping) => Some(stopped(now, ReasonChange::Keep)),
        // ShuttingDown waits for Gone; Stopped and Terminated know already; a start that is under way is Pending.
        (Phase::Ended { .. }, ShuttingDown | Stopped | Terminated)
        | (Phase::Running, _)
        | (Phase::Starting | Phase::Stopping | Phase::Gone, _) => None,
    }
}

/// The instance's host was removed from the cloud, and with it the only copy of its root volume; `None` when it is
/// terminated already. As with an instance of EC2 whose root is on its host's own disk: such an instance is terminated,
/// for it could not be started anywhere.
pub fn lose_host(now: &Lifecycle) -> Option<Change> {
    (now.state != InstanceState::Terminated).then(|| Change {
        next: Lifecycle {
            state: InstanceState::Terminated,
            desired: Desired::Terminated,
            ..now.clone()
        },
        hold: Hold::DropAll,
        reason: ReasonChange::Set(Reason::internal_error(
            "The instance's host was removed from the cloud",
        )),
    })
}

/// The host that an instance was to start on was removed from the cloud before the instance's volumes had come there: it has
/// never heard of the run.
pub fn unstart(now: &Lifecycle) -> Change {
    stopped(
        now,
        ReasonChange::Set(Reason::internal_error(
            "The host that the instance was to start on was removed from the cloud",
        )),
    )
}

/// A run ended although nobody asked for it.
fn ended(now: &Lifecycle, end: End, message: &str) -> Change {
    match end {
        End::GuestPowerOff if now.power_off_terminates => shutting_down(now, Reason::instance_initiated()),
        End::GuestPowerOff => stopped(now, ReasonChange::Set(Reason::instance_initiated())),
        // As in EC2 a launch that fails leaves nothing behind; a start that fails leaves what was there.
        End::StartFailed if now.run == 1 && now.state == InstanceState::Pending => shutting_down(
            now,
            Reason::internal_error(&explain("Internal error on launch", message)),
        ),
        End::StartFailed => failed(now, "The instance could not be started", message),
        End::MonitorDied => failed(now, "The virtual machine monitor ended", message),
        End::GuestCrashed => failed(now, "The guest crashed", message),
        End::HostRebooted => failed(now, "The instance's host restarted", message),
        End::Requested => failed(now, "The host ended the instance", message),
    }
}

fn failed(now: &Lifecycle, what: &str, message: &str) -> Change {
    stopped(
        now,
        ReasonChange::Set(Reason::internal_error(&explain(what, message))),
    )
}

fn explain(what: &str, message: &str) -> String {
    match message {
        "" => what.to_owned(),
        why => format!("{what}: {why}"),
    }
}

fn stopped(now: &Lifecycle, reason: ReasonChange) -> Change {
    Change {
        next: Lifecycle {
            state: InstanceState::Stopped,
            desired: Desired::Stopped,
            force: false,
            ..now.clone()
        },
        hold: Hold::DropCompute,
        reason,
    }
}

fn shutting_down(now: &Lifecycle, reason: Reason) -> Change {
    Change {
        next: Lifecycle {
            state: InstanceState::ShuttingDown,
            desired: Desired::Terminated,
            ..now.clone()
        },
        hold: Hold::Keep,
        reason: ReasonChange::Set(reason),
    }
}
