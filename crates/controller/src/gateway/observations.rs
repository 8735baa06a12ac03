//! Writes what an agent observed, and what follows from it, in one transaction. An observation that says nothing new
//! (most do: they are complete each time) costs a read and no write.

use std::collections::HashMap;

use hearth_api::agent::{InstanceObservation, Observation, instance_observation, run_end};
use sqlx::SqliteConnection;

use crate::app::App;
use crate::lifecycle::{Change, End, Observed, Phase, observe};
use crate::store::instances::{self, InstanceRow, ObservationRow};
use crate::store::{Result, hosts};

pub(super) async fn apply(app: &App, host_id: &str, observation: Observation) -> Result<()> {
    let mut read = app.store.read().await?;
    let news = news(&mut read, host_id, &observation).await?;
    let resized = resized(&mut read, host_id, &observation).await?;
    drop(read);
    if news.is_empty() && !resized {
        return Ok(());
    }
    let mut tx = app.store.write().await?;
    if let Some(capacity) = observation.capacity.filter(|_| resized) {
        hosts::resize(tx.connection(), host_id, &capacity).await?;
    }
    // Once more, now that nobody else writes.
    for News {
        row,
        reported,
        recovered,
        change,
    } in self::news(tx.connection(), host_id, &observation).await?
    {
        instances::put_observation(tx.connection(), &reported).await?;
        if recovered {
            tracing::info!(
                instance = row.id,
                host = host_id,
                "an instance was started again after its host had restarted"
            );
            tx.event("instance.recovered", &row.id).await?;
        }
        if let Some(change) = change {
            tracing::info!(
                instance = row.id,
                host = host_id,
                from = %row.state(),
                to = %change.next.state,
                why = reported.end_message,
                start_micros = reported.start_micros,
                "an instance changed on its host"
            );
            instances::write_change(&mut tx, &row, &change).await?;
        }
    }
    tx.commit().await
}

/// What is new about one instance.
struct News {
    row: InstanceRow,
    reported: ObservationRow,
    /// The run was started again after its host had restarted.
    recovered: bool,
    change: Option<Change>,
}

async fn news(c: &mut SqliteConnection, host_id: &str, observation: &Observation) -> Result<Vec<News>> {
    let ids: Vec<&str> = observation
        .instances
        .iter()
        .map(|i| i.instance_id.as_str())
        .collect();
    let rows = instances::by_ids(c, &ids).await?;
    let mut rows: HashMap<String, InstanceRow> = rows.into_iter().map(|row| (row.id.clone(), row)).collect();
    let before = instances::observations(c, &ids).await?;
    let mut news = Vec::new();
    for reported in &observation.instances {
        // Law 5: what we do not know of is the agent's to keep, and ours to leave alone.
        let Some(row) = rows
            .remove(&reported.instance_id)
            .filter(|row| row.host_id == host_id)
        else {
            tracing::debug!(
                host = host_id,
                instance = reported.instance_id,
                "a host has what is not its own"
            );
            continue;
        };
        let change = observed(reported).and_then(|observed| observe(&row.lifecycle(), &observed));
        let reported = to_row(reported);
        let known = before.get(&row.id);
        if change.is_some() || known != Some(&reported) {
            let counted = known.filter(|known| known.run == reported.run);
            news.push(News {
                recovered: reported.recoveries > counted.map_or(0, |known| known.recoveries),
                row,
                reported,
                change,
            });
        }
    }
    Ok(news)
}

async fn resized(c: &mut SqliteConnection, host_id: &str, observation: &Observation) -> Result<bool> {
    match observation.capacity {
        Some(capacity) => Ok(hosts::capacity(c, host_id).await?.as_ref() != Some(&capacity)),
        None => Ok(false),
    }
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

fn to_row(reported: &InstanceObservation) -> ObservationRow {
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let end = reported.end.clone().unwrap_or_default();
    ObservationRow {
        instance_id: reported.instance_id.clone(),
        phase: reported.phase.into(),
        run: signed(reported.run),
        end_cause: end.cause.into(),
        end_message: end.message,
        start_micros: signed(reported.start_micros),
        reboot: signed(reported.reboot),
        recoveries: reported.recoveries.into(),
    }
}
