//! Volumes: no attachment waits for its host for ever, nor does a modification.

use super::{Clock, Decision, Limits};
use crate::state::{ModificationState, Progress, State, Tx, Volume};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// The instance did not get it in time: it is detached again.
    Withdraw,
    /// The guest did not let it go in time.
    Busy,
    /// The instance did not get its new size in time: it stays what it was.
    Fail,
}

pub(super) fn decide(state: &State, row: &Volume, limits: Limits, clock: Clock) -> Decision<Action> {
    let mut decision = Decision::nothing();
    let mut after = |since, limit, action| {
        let one = Decision::at(clock.deadline(since, limit), clock, action);
        decision.actions.extend(one.actions);
        decision.again_at = one.again_at.into_iter().chain(decision.again_at).min();
    };
    if let Some(attachment) = &row.attachment {
        let since = attachment.progress_since;
        match attachment.progress {
            // Its move has a deadline of its own.
            Progress::Attaching if state.is_away(row) => {}
            Progress::Attaching => after(since, limits.ending, Action::Withdraw),
            Progress::Detaching => after(since, limits.busy, Action::Busy),
            // The user takes it away by force, or ends the instance. Its host takes it away as soon as it can; if the host is
            // lost, forgetting it ends the attachment.
            Progress::Attached | Progress::Busy | Progress::Forced => {}
        }
    }
    if let Some(modification) = row.modification.as_ref().filter(|_| row.is_modifying()) {
        after(modification.started_at, limits.ending, Action::Fail);
    }
    decision
}

/// Volumes that wait for their hosts.
pub(super) fn unsettled(state: &State) -> impl Iterator<Item = &Volume> {
    state.by(&Volume::BY_UNSETTLED, Volume::UNSETTLED)
}

pub(super) fn carry_out(tx: &mut Tx<'_>, id: &str, action: Action) {
    let now = tx.now();
    tx.update::<Volume>(id, |volume| match action {
        Action::Withdraw => set_progress(volume, Progress::Forced, now),
        Action::Busy => set_progress(volume, Progress::Busy, now),
        Action::Fail => fail(volume, now),
    });
    tracing::warn!(
        volume = id,
        ?action,
        "a volume has waited for its host for too long"
    );
    tx.event("volume.overdue", id);
}

fn set_progress(volume: &mut Volume, progress: Progress, now: i64) {
    if let Some(attachment) = &mut volume.attachment {
        attachment.set_progress(progress, now);
    }
}

/// What its host makes of it later is taken up all the same ([`crate::gateway`]).
fn fail(volume: &mut Volume, now: i64) {
    let Some(modification) = &mut volume.modification else {
        return;
    };
    modification.state = ModificationState::Failed;
    modification.ended_at = Some(now);
    if modification.message.is_empty() {
        modification.message =
            "The volume's host has not said in time that the instance has the new size.".into();
    }
    volume.spec = modification.original;
}
