//! Instances: no transitional state is for ever.

use hearth_api::InstanceState;

use super::{Clock, Decision, Limits};
use crate::state::{Instance, State};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// A launch or a start has come to nothing.
    GiveUp,
    /// The guest is not asked to end any longer.
    Force,
}

pub(super) fn decide(state: &State, row: &Instance, limits: Limits, clock: Clock) -> Decision<Action> {
    let after = |limit, action| Decision::at(clock.deadline(row.state_since, limit), clock, action);
    match row.state {
        // What it waits for has deadlines of its own.
        InstanceState::Pending if state.has_moves(row) => Decision::nothing(),
        InstanceState::Pending => after(limits.pending, Action::GiveUp),
        InstanceState::Stopping | InstanceState::ShuttingDown if !row.force => {
            after(limits.ending, Action::Force)
        }
        // Its host ends it as soon as it can; if the host is lost, forgetting it ends it.
        InstanceState::Stopping | InstanceState::ShuttingDown => Decision::nothing(),
        InstanceState::Running | InstanceState::Stopped | InstanceState::Terminated => Decision::nothing(),
    }
}
