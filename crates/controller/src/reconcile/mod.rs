//! What happens without a call: hosts that fall silent, hosts that are drained, states of instances and volumes that last too
//! long, KMS keys that are to be deleted or rotated.
//!
//! For each noun a pure `decide` says what is to be done about one object at a time of the clock, and when to look at it
//! again. [`run`] asks it after every change and at every deadline, and carries the answers out in one transaction that
//! asks once more: whatever was cut off is decided again. `docs/states.md` has the table of all states.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hearth_api::InstanceState;

use crate::app::App;
use crate::config::Config;
use crate::lifecycle;
use crate::state::{Instance, Move, Stage, State, Tx};
use crate::store::{CommitError, Standing, now};

mod host;
mod instance;
mod kms_key;
#[cfg(test)]
mod tests;
mod volume;

/// Between two looks at least: changes that come faster are looked at together.
const PAUSE: Duration = Duration::from_millis(200);
/// After a failure of the database.
const AGAIN: Duration = Duration::from_secs(1);
/// Between two looks at most. The clock may be set meanwhile.
const LONGEST: Duration = Duration::from_secs(60);
/// A difference of the clock and of the time that passed that is taken for a change of the clock.
const STEP: i64 = 5_000;
/// Actions that one transaction carries out. The others follow.
const BATCH: usize = 1000;

/// How long a state may last, in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Limits {
    silence: i64,
    pending: i64,
    ending: i64,
    busy: i64,
}

impl Limits {
    fn of(config: &Config) -> Self {
        Self {
            silence: i64::from(config.host_silence_seconds) * 1000,
            pending: i64::from(config.pending_seconds) * 1000,
            ending: i64::from(config.ending_seconds) * 1000,
            busy: i64::from(config.busy_seconds) * 1000,
        }
    }
}

/// The time that deadlines are held against.
#[derive(Debug, Clone, Copy)]
struct Clock {
    /// Milliseconds since the epoch.
    now: i64,
    /// States that are older count from here: before this time nobody was there who could have ended them, or the clock
    /// was another.
    watched_since: i64,
}

impl Clock {
    /// When a state that began at `since` has lasted for `limit`.
    fn deadline(self, since: i64, limit: i64) -> i64 {
        since.max(self.watched_since).saturating_add(limit)
    }
}

/// What is to be done about an object, and when it is to be looked at again if nothing changes.
#[derive(Debug, PartialEq, Eq)]
struct Decision<A> {
    actions: Vec<A>,
    /// Milliseconds since the epoch.
    again_at: Option<i64>,
}

impl<A> Decision<A> {
    fn nothing() -> Self {
        Self {
            actions: Vec::new(),
            again_at: None,
        }
    }

    fn now(action: A) -> Self {
        Self {
            actions: vec![action],
            again_at: None,
        }
    }

    fn at(deadline: i64, clock: Clock, action: A) -> Self {
        if clock.now >= deadline {
            Self::now(action)
        } else {
            Self {
                actions: Vec::new(),
                again_at: Some(deadline),
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    Host(String, host::Action),
    Instance(String, instance::Action),
    Volume(String, volume::Action),
    /// A volume that moves: its host was not heard of it for too long.
    Move(String),
    Key(String, kms_key::Action),
}

/// All that is to be done, and when to look again.
fn decide(
    state: &State,
    silence: &HashMap<String, i64>,
    limits: Limits,
    clock: Clock,
) -> (Vec<Action>, Option<i64>) {
    let (mut all, mut again) = (Vec::new(), None);
    let mut sooner = |at: Option<i64>| again = at.into_iter().chain(again).min();
    for host in state.hosts() {
        let decision = host::decide(state, host, silence.get(&host.id).copied(), limits, clock);
        sooner(decision.again_at);
        let of_host = |action| Action::Host(host.id.clone(), action);
        all.extend(decision.actions.into_iter().map(of_host));
    }
    for transitional in [
        InstanceState::Pending,
        InstanceState::Stopping,
        InstanceState::ShuttingDown,
    ] {
        for row in state.by(&Instance::BY_STATE, transitional.name()) {
            let decision = instance::decide(state, row, limits, clock);
            sooner(decision.again_at);
            let of_instance = |action| Action::Instance(row.id.clone(), action);
            all.extend(decision.actions.into_iter().map(of_instance));
        }
    }
    for row in volume::unsettled(state) {
        let decision = volume::decide(state, row, limits, clock);
        sooner(decision.again_at);
        let of_volume = |action| Action::Volume(row.id.clone(), action);
        all.extend(decision.actions.into_iter().map(of_volume));
    }
    for row in state.by(&Move::BY_STAGE, Move::STORING) {
        if let Stage::Storing { progressed_at, .. } = row.stage {
            let deadline = clock.deadline(progressed_at, limits.ending);
            let decision = Decision::at(deadline, clock, Action::Move(row.id.clone()));
            sooner(decision.again_at);
            all.extend(decision.actions);
        }
    }
    for row in kms_key::waiting(state) {
        let decision = kms_key::decide(row, clock);
        sooner(decision.again_at);
        let of_key = |action| Action::Key(row.id.clone(), action);
        all.extend(decision.actions.into_iter().map(of_key));
    }
    (all, again)
}

/// Runs until the process ends, while it is the leader.
pub async fn run(app: Arc<App>) {
    let limits = Limits::of(&app.config);
    let mut changes = app.store.subscribe();
    let mut clock = Clock {
        now: now(),
        watched_since: now(),
    };
    let mut standing = app.store.standing();
    loop {
        if !app.store.is_leader() {
            tokio::select! {
                () = app.ending.cancelled() => return,
                led = standing.wait_for(Standing::is_leader) => if led.is_err() {
                    return;
                },
            }
            // What was before, another has watched.
            app.sessions.watch_anew();
            clock = Clock {
                now: now(),
                watched_since: now(),
            };
        }
        let wait = match look(&app, limits, clock).await {
            Ok(again) => again.map_or(LONGEST, |at| {
                Duration::from_millis(at.saturating_sub(clock.now).max(1).unsigned_abs()).min(LONGEST)
            }),
            Err(error) => {
                tracing::error!(%error, "carrying out what is overdue; trying again");
                AGAIN
            }
        };
        let looked = tokio::time::Instant::now();
        tokio::time::sleep(PAUSE).await;
        tokio::select! {
            () = app.ending.cancelled() => return,
            () = tokio::time::sleep(wait.saturating_sub(PAUSE)) => {}
            () = app.sessions.changed() => {}
            changed = changes.changed() => if changed.is_err() {
                return;
            },
        }
        clock = after(
            clock,
            i64::try_from(looked.elapsed().as_millis()).unwrap_or(0),
            now(),
        );
    }
}

/// The clock after `passed` milliseconds, when the system's says `now`. One that was set is watched anew.
fn after(clock: Clock, passed: i64, now: i64) -> Clock {
    let was_set = now.abs_diff(clock.now.saturating_add(passed)) > STEP.unsigned_abs();
    Clock {
        now,
        watched_since: if was_set { now } else { clock.watched_since },
    }
}

/// Does what is to be done now. Answers when to look again.
async fn look(app: &Arc<App>, limits: Limits, clock: Clock) -> Result<Option<i64>, CommitError> {
    let state = app.store.state();
    let (actions, again) = decide(&state, &silence(app, &state), limits, clock);
    if actions.is_empty() {
        return Ok(again);
    }
    drop(state);
    let shared = Arc::clone(app);
    app.store
        .transact(move |tx| {
            // Once more: the state may have changed since.
            let (mut actions, mut again) = decide(tx, &silence(&shared, tx), limits, clock);
            if actions.len() > BATCH {
                actions.truncate(BATCH);
                again = Some(clock.now);
            }
            for action in actions {
                match action {
                    Action::Key(id, action) => kms_key::carry_out(tx, &shared.vault, &id, action),
                    action => carry_out(tx, action, limits),
                }
            }
            Ok(again)
        })
        .await
}

/// Milliseconds for which hosts have been silent; connected ones are not in it.
fn silence(app: &App, state: &State) -> HashMap<String, i64> {
    let silent = |host: &crate::state::Host| {
        let silence = app.sessions.silence(&host.id)?;
        Some((
            host.id.clone(),
            i64::try_from(silence.as_millis()).unwrap_or(i64::MAX),
        ))
    };
    state.hosts().filter_map(silent).collect()
}

fn carry_out(tx: &mut Tx<'_>, action: Action, limits: Limits) {
    match action {
        Action::Host(id, action) => host::carry_out(tx, &id, action),
        Action::Volume(id, action) => volume::carry_out(tx, &id, action),
        Action::Move(id) => {
            let minutes = limits.ending.unsigned_abs().div_ceil(60_000);
            tx.fail_move(
                &id,
                &format!("the host has stored nothing of it for {minutes} minutes"),
            );
        }
        // Of the vault.
        Action::Key(..) => {}
        Action::Instance(id, action) => {
            let Some(life) = tx.get::<Instance>(&id).map(Instance::lifecycle) else {
                return;
            };
            let change = match action {
                instance::Action::GiveUp => {
                    lifecycle::give_up(&life, limits.pending.unsigned_abs().div_ceil(60_000))
                }
                instance::Action::Force => lifecycle::force(&life),
            };
            if let Some(change) = change {
                tracing::warn!(
                    instance = id,
                    state = %life.state,
                    ?action,
                    "an instance was in a transitional state for too long"
                );
                tx.change_instance(&id, &change);
            }
        }
    }
}
