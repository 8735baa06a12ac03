//! Writes what an agent observed, and what follows from it, in one transaction. An observation that says nothing new
//! (most do: they are complete each time) costs a read and no write.

use std::collections::HashSet;

use hearth_api::InstanceState;
use hearth_api::agent::instance_intent::BootMode;
use hearth_api::agent::{InstanceObservation, Observation, instance_observation, run_end};

use super::{snapshots, volumes};
use crate::app::App;
use crate::lifecycle::{Change, End, Observed, Phase, observe};
use crate::state::{self, HostReport, Incarnation, Instance, MAX_REPAIRS, Repair, State, Tx, Volume};
use crate::store::CommitError;

pub(super) async fn apply(app: &App, host_id: &str, observation: Observation) -> Result<(), CommitError> {
    let state = app.store.state();
    if news(&state, host_id, &observation).is_empty()
        && !is_resized(&state, host_id, &observation)
        && erased(&state, host_id, &observation).is_empty()
        && copies(&state, host_id, &observation).is_empty()
        && left(&state, host_id, &observation).is_empty()
        && volumes::news(&state, host_id, &observation, 0).is_empty()
        && snapshots::news(&state, host_id, &observation).is_empty()
        && repairs(&state, host_id, &observation).is_empty()
    {
        return Ok(());
    }
    drop(state);
    let host_id = host_id.to_owned();
    app.store
        .transact(move |tx| {
            record(tx, &host_id, &observation);
            Ok(())
        })
        .await
}

fn record(tx: &mut Tx<'_>, host_id: &str, observation: &Observation) {
    if let Some(capacity) = &observation.capacity
        && is_resized(tx, host_id, observation)
    {
        let now = tx.now();
        tx.update::<HostReport>(host_id, |report| {
            report.set_capacity(capacity);
            report.reported_at = now;
        });
    }
    let repairs = repairs(tx, host_id, observation);
    if !repairs.is_empty() {
        for repair in &repairs {
            tracing::warn!(
                host = host_id,
                what = repair.what,
                "a host has mended what somebody had changed on it"
            );
        }
        tx.update::<HostReport>(host_id, |report| report.add_repairs(repairs));
        tx.event("host.repaired", host_id);
    }
    // Once more: the state may have changed since.
    for id in erased(tx, host_id, observation) {
        tracing::info!(volume = id, host = host_id, "a volume was erased");
        tx.remove_volume(&id);
    }
    for id in copies(tx, host_id, observation) {
        tracing::info!(id, host = host_id, "the old copy of a volume was erased");
        tx.drop_copy(&id);
    }
    for id in left(tx, host_id, observation) {
        tracing::info!(id, host = host_id, "an instance has left a host");
        tx.remove::<Incarnation>(&id);
    }
    for news in news(tx, host_id, observation) {
        let id = news.reported.instance_id.clone();
        if news.recovered {
            tracing::info!(
                instance = id,
                host = host_id,
                "an instance was started again after its host had restarted"
            );
            tx.event("instance.recovered", &id);
        }
        if let Some(change) = &news.change {
            tracing::info!(
                instance = id,
                host = host_id,
                from = %news.from,
                to = %change.next.state,
                why = news.reported.end_message,
                start_micros = news.reported.start_micros,
                "an instance changed on its host"
            );
        }
        tx.put(news.reported);
        if let Some(change) = &news.change {
            tx.change_instance(&id, change);
        }
    }
    for news in snapshots::news(tx, host_id, observation) {
        snapshots::record(tx, news);
    }
    // After the instances: those that have ended have no attachments any more that anybody waits for.
    for volume in volumes::news(tx, host_id, observation, tx.now()) {
        tracing::info!(
            volume = volume.id,
            host = host_id,
            attachment = ?volume.attachment,
            modification = ?volume.modification,
            "a volume changed on its host"
        );
        tx.event("volume.changed", &volume.id);
        tx.put(volume);
    }
}

/// What is new about one instance.
struct News {
    reported: state::Observation,
    from: InstanceState,
    /// The run was started again after its host had restarted.
    recovered: bool,
    change: Option<Change>,
}

fn news(state: &State, host_id: &str, observation: &Observation) -> Vec<News> {
    let mut news = Vec::new();
    let mut seen = HashSet::new();
    for reported in &observation.instances {
        // Law 5: what we do not know of is the agent's to keep, and ours to leave alone.
        let row = state
            .get::<Instance>(&reported.instance_id)
            .filter(|row| row.host_id == host_id && seen.insert(row.id.as_str()));
        let Some(row) = row else {
            tracing::debug!(
                host = host_id,
                instance = reported.instance_id,
                "a host has what is not its own"
            );
            continue;
        };
        let change = observed(reported).and_then(|observed| observe(&row.lifecycle(), &observed));
        let reported = to_row(reported);
        let known = state.get::<state::Observation>(&row.id);
        if change.is_some() || known != Some(&reported) {
            let counted = known.filter(|known| known.run == reported.run);
            news.push(News {
                recovered: reported.recoveries > counted.map_or(0, |known| known.recoveries),
                from: row.state,
                reported,
                change,
            });
        }
    }
    news
}

/// Volumes that were to be erased, and are.
fn erased(state: &State, host_id: &str, observation: &Observation) -> Vec<String> {
    let said = observation.erased_volumes.iter();
    said.filter_map(|id| state.get::<Volume>(id))
        .filter(|row| row.host_id.as_deref() == Some(host_id) && row.attachment.is_none() && row.deleting)
        .map(|row| row.id.clone())
        .collect()
}

/// Moves of which the host has said that its old copy of the volume is erased.
fn copies(state: &State, host_id: &str, observation: &Observation) -> Vec<String> {
    let said = observation.erased_volumes.iter();
    said.filter_map(|id| state.old_copy(id, host_id))
        .map(|row| row.id.clone())
        .collect()
}

/// Lives that instances have left on the host, and of which it has nothing more.
fn left(state: &State, host_id: &str, observation: &Observation) -> Vec<String> {
    let gone = observation.instances.iter();
    gone.filter(|said| said.phase() == instance_observation::Phase::Gone)
        .filter_map(|said| state.left(&said.instance_id, host_id))
        .map(|life| life.id.clone())
        .collect()
}

/// Repairs that are not known yet. What a host says has a bound, whatever it says.
fn repairs(state: &State, host_id: &str, observation: &Observation) -> Vec<Repair> {
    const MAX_LENGTH: usize = 300;
    let Some(report) = state.get::<HostReport>(host_id) else {
        return Vec::new();
    };
    let too_many = observation.repairs.len().saturating_sub(MAX_REPAIRS);
    let said = observation.repairs.iter().skip(too_many).map(|said| Repair {
        time: said.time,
        what: said.what.chars().take(MAX_LENGTH).collect(),
    });
    said.filter(|repair| !report.repairs.contains(repair)).collect()
}

/// Whether the host has another capacity than it said last.
fn is_resized(state: &State, host_id: &str, observation: &Observation) -> bool {
    let known = state.get::<HostReport>(host_id).map(HostReport::capacity);
    observation.capacity.is_some() && known.is_some() && observation.capacity != known
}

/// In the rules' words; `None` for phases that say nothing about an instance's life.
fn observed(reported: &InstanceObservation) -> Option<Observed> {
    use instance_observation::Phase as Said;
    let phase = match reported.phase() {
        Said::Starting => Phase::Starting,
        Said::Running => Phase::Running,
        Said::Stopping => Phase::Stopping,
        Said::Gone => Phase::Gone,
        Said::Ended => {
            let end = reported.end.clone().unwrap_or_default();
            Phase::Ended {
                end: match end.cause() {
                    run_end::Cause::Requested => End::Requested,
                    run_end::Cause::GuestPowerOff => End::GuestPowerOff,
                    run_end::Cause::StartFailed => End::StartFailed,
                    run_end::Cause::GuestCrashed => End::GuestCrashed,
                    run_end::Cause::HostRebooted => End::HostRebooted,
                    // An end without a cause that we know is an end all the same.
                    run_end::Cause::MonitorDied | run_end::Cause::Unspecified => End::MonitorDied,
                },
                message: end.message,
            }
        }
        Said::Unknown | Said::Unspecified => return None,
    };
    Some(Observed {
        run: reported.run,
        phase,
    })
}

fn to_row(reported: &InstanceObservation) -> state::Observation {
    let end = reported.end.clone().unwrap_or_default();
    state::Observation {
        instance_id: reported.instance_id.clone(),
        phase: reported.phase,
        run: reported.run,
        end_cause: end.cause,
        end_message: end.message,
        start_micros: reported.start_micros,
        reboot: reported.reboot,
        recoveries: reported.recoveries,
        by_firmware: match reported.boot_mode() {
            BootMode::LegacyBios => Some(false),
            BootMode::Uefi => Some(true),
            BootMode::Unspecified | BootMode::UefiPreferred => None,
        },
    }
}
