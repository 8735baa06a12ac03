//! Hosts: who is lost, and what a drain stops.

use hearth_api::InstanceState;

use super::{Clock, Decision, Limits};
use crate::lifecycle;
use crate::state::{Host, HostReport, Instance, State, Tx};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing was heard of it since this time, in milliseconds since the epoch.
    Lose { since: i64 },
    /// It has a session again.
    Find,
    /// Stop this running instance: its host is drained.
    Stop { instance_id: String },
}

/// `silence`: milliseconds for which it has had no session; `None`: it has one.
pub(super) fn decide(
    state: &State,
    host: &Host,
    silence: Option<i64>,
    limits: Limits,
    clock: Clock,
) -> Decision<Action> {
    let mut decision = match silence {
        // One whose agent has never had a session is awaited, not lost.
        Some(silence) if host.silent_since.is_none() && state.get::<HostReport>(&host.id).is_some() => {
            let since = clock.now.saturating_sub(silence);
            let deadline = since.saturating_add(limits.silence);
            Decision::at(deadline, clock, Action::Lose { since })
        }
        None if host.silent_since.is_some() => Decision::now(Action::Find),
        _ => Decision::nothing(),
    };
    if host.drain.is_some_and(|drain| drain.stop_instances) {
        let running = state
            .by(&Instance::BY_HOST, &host.id)
            .filter(|row| row.state == InstanceState::Running);
        decision.actions.extend(running.map(|row| Action::Stop {
            instance_id: row.id.clone(),
        }));
    }
    decision
}

pub(super) fn carry_out(tx: &mut Tx<'_>, id: &str, action: Action) {
    match action {
        Action::Lose { since } => {
            tracing::warn!(
                host = id,
                since,
                "a host is lost: its state is unknown, and the status of its instances impaired"
            );
            tx.update::<Host>(id, |host| host.silent_since = Some(since));
            tx.event("host.lost", id);
        }
        Action::Find => {
            tracing::info!(host = id, "a host that was lost is back");
            tx.update::<Host>(id, |host| host.silent_since = None);
            tx.event("host.found", id);
        }
        Action::Stop { instance_id } => {
            let life = tx.get::<Instance>(&instance_id).map(Instance::lifecycle);
            if let Some(change) = life.as_ref().and_then(lifecycle::stop_for_drain) {
                tracing::info!(
                    host = id,
                    instance = instance_id,
                    "an instance is stopped: its host is drained"
                );
                tx.change_instance(&instance_id, &change);
            }
        }
    }
}
