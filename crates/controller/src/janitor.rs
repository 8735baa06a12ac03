//! Tidies up what nobody asks for any more: terminated instances, old history, disks of images and snapshots that are gone.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hearth_api::InstanceState;

use crate::app::App;
use crate::services::sweep_partial_uploads;
use crate::state::{
    ClientToken, DEREGISTERED, Image, Instance, Move, Reservation, Snapshot, State, Tx, Volume,
};
use crate::store::{CommitError, now};

/// Events are a feed, not an archive.
const KEEP_EVENTS_MS: i64 = 24 * 3600 * 1000;
/// A call may be repeated for so long after what it made is out of sight.
const KEEP_TOKENS_MS: i64 = 24 * 3600 * 1000;
/// Tokens whose instances are out of sight: whoever launches and terminates all day gets no more of hearthd's memory.
const KEPT_TOKENS: usize = 100_000;
/// Uploads and snapshots in a repository that several hearthd share are swept when they are so old.
const YOUNG: Duration = Duration::from_secs(24 * 3600);
/// Between collections of the repository, if nothing else asks for one.
const COLLECT: Duration = Duration::from_secs(24 * 3600);
/// How long a new leader leaves the repository to what the last one was deleting.
const SUCCESSION: Duration = Duration::from_secs(60);
const KEEP_AUDIT_MS: i64 = 90 * 24 * 3600 * 1000;

/// Runs until the process ends.
pub async fn run(app: Arc<App>) {
    let visible = Duration::from_secs(app.config.terminated_visible.into());
    // Often enough that "about an hour" is about an hour, and that a test with seconds does not wait long.
    let period = (visible / 4).clamp(Duration::from_millis(250), Duration::from_secs(60));
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut collector = Collector { due: Instant::now() };
    loop {
        tokio::select! {
            () = app.ending.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if !app.store.is_leader() {
            collector.due = Instant::now() + SUCCESSION;
            continue;
        }
        match tidy(&app, visible).await {
            Ok(0) => {}
            Ok(_) => collector.due = Instant::now(),
            Err(error) => tracing::error!(%error, "tidying up"),
        }
        if app.littered.swap(false, Ordering::Relaxed) {
            collector.due = Instant::now();
        }
        let uploads = app.uploads_dir();
        let swept = tokio::task::spawn_blocking(move || sweep_partial_uploads(&uploads)).await;
        if let Ok(Err(error)) = swept {
            tracing::error!(%error, "removing old uploads that were cut off");
        }
        collector.work(&app).await;
    }
}

/// Answers how many disks have gone.
async fn tidy(app: &App, visible: Duration) -> anyhow::Result<usize> {
    let visible_ms = i64::try_from(visible.as_millis()).unwrap_or(i64::MAX);
    let now = now();
    let history = app
        .store
        .forget_history(now - KEEP_EVENTS_MS, now - KEEP_AUDIT_MS)
        .await?;
    let state = app.store.state();
    let ended = ended(&state, now - visible_ms);
    let is_tidy = unused_images(&state).is_empty()
        && unused_snapshots(&state).is_empty()
        && unused_moves(&state).is_empty();
    if ended.is_empty() && is_tidy && old_tokens(&state, now).is_empty() {
        return Ok(0);
    }
    drop(state);
    let (instances, disks) = app
        .store
        .transact(move |tx| {
            // Once more: the state may have changed since.
            let ended = self::ended(tx, tx.now() - visible_ms);
            forget(tx, &ended);
            tx.remove_all::<ClientToken>(old_tokens(tx, tx.now()));
            Ok::<_, CommitError>((ended.len(), forget_disks(tx)))
        })
        .await?;
    // After the commit: a disk that no row names is swept at the next start, a row without its disk would be a lie.
    for disk in &disks {
        if let Err(error) = app.repository.delete(disk).await {
            tracing::warn!(disk, error = %hearth_log::chain(&error), "removing a disk that nothing names");
        }
    }
    tracing::info!(instances, history, disks = disks.len(), "tidied up");
    Ok(disks.len())
}

/// Instances that were terminated before a time.
fn ended(state: &State, before: i64) -> Vec<String> {
    state
        .by(&Instance::BY_STATE, InstanceState::Terminated.name())
        .filter(|row| row.terminated_at.is_some_and(|at| at <= before))
        .map(|row| row.id.clone())
        .collect()
}

/// Removes instances with all that is theirs.
fn forget(tx: &mut Tx<'_>, instances: &[String]) {
    for id in instances {
        let Some(row) = tx.get::<Instance>(id).cloned() else {
            continue;
        };
        tx.remove::<Instance>(id);
        if let Some(blob) = &row.user_data
            && !tx.any_by(&Instance::BY_USER_DATA, blob)
        {
            tx.drop_blob(blob);
        }
        if !tx.any_by(&Instance::BY_RESERVATION, &row.reservation_id) {
            tx.remove::<Reservation>(&row.reservation_id);
            let tokens: Vec<ClientToken> = tx
                .by(&ClientToken::BY_RESOURCE, &row.reservation_id)
                .cloned()
                .collect();
            for mut token in tokens {
                token.outlived_at = Some(tx.now());
                tx.put(token);
            }
        }
    }
}

/// Tokens that nobody can repeat a call with any more: those kept long enough, and the oldest of too many.
fn old_tokens(state: &State, now: i64) -> Vec<String> {
    let mut outlived: Vec<(i64, &str)> = state
        .all::<ClientToken>()
        .filter_map(|token| Some((token.outlived_at?, token.id.as_str())))
        .collect();
    outlived.sort_unstable();
    let too_many = outlived.len().saturating_sub(KEPT_TOKENS);
    let old = outlived.partition_point(|(at, _)| *at <= now - KEEP_TOKENS_MS);
    outlived
        .into_iter()
        .take(old.max(too_many))
        .map(|(_, id)| id.to_owned())
        .collect()
}

/// Deregistered images that no volume is based on.
fn unused_images(state: &State) -> Vec<String> {
    state
        .by(&Image::BY_STATE, DEREGISTERED)
        .filter(|image| !state.any_by(&Volume::BY_IMAGE, &image.id))
        .map(|image| image.id.clone())
        .collect()
}

/// Deleted snapshots that nothing is based on.
fn unused_snapshots(state: &State) -> Vec<String> {
    state
        .by(&Snapshot::BY_DELETED, Snapshot::DELETED)
        .filter(|snapshot| {
            !state.any_by(&Volume::BY_SNAPSHOT, &snapshot.id)
                && !state.any_by(&Image::BY_SNAPSHOT, &snapshot.id)
        })
        .map(|snapshot| snapshot.id.clone())
        .collect()
}

/// Moves that are over, and that no volume begins with any more.
fn unused_moves(state: &State) -> Vec<String> {
    state
        .by(&Move::BY_STAGE, Move::SETTLED)
        .filter(|row| !state.any_by(&Volume::BY_MOVE, &row.id))
        .map(|row| row.id.clone())
        .collect()
}

/// Whether anything names a disk in the repository.
fn is_named(state: &State, disk: &str) -> bool {
    state.any_by(&Snapshot::BY_DISK, disk)
        || state.any_by(&Image::BY_DISK, disk)
        || state.any_by(&Move::BY_DISK, disk)
}

/// Removes images, snapshots and moves that nothing needs. Answers the disks in the repository that nothing names any more.
fn forget_disks(tx: &mut Tx<'_>) -> BTreeSet<String> {
    let images = unused_images(tx);
    let of_images = images.iter().filter_map(|id| tx.get::<Image>(id));
    let mut disks: BTreeSet<String> = of_images.map(|image| image.snapshot.clone()).collect();
    tx.remove_all::<Image>(images);
    let snapshots = unused_snapshots(tx);
    let of_snapshots = snapshots.iter().filter_map(|id| tx.get::<Snapshot>(id)?.disk());
    disks.extend(of_snapshots.map(|disk| disk.name.clone()));
    tx.remove_all::<Snapshot>(snapshots);
    let moves = unused_moves(tx);
    let of_moves = moves.iter().filter_map(|id| tx.get::<Move>(id)?.disk());
    disks.extend(of_moves.map(|disk| disk.name.clone()));
    tx.remove_all::<Move>(moves);
    disks.retain(|disk| !disk.is_empty() && !is_named(tx, disk));
    disks
}

/// At the beginning of a term: removes uploads that never ended, and disks that nothing names. Where
/// several hearthd share the repository, young ones may be what another is still receiving.
///
/// # Errors
/// The repository cannot be read.
pub async fn sweep(app: &App) -> anyhow::Result<()> {
    let young = match app.config.database.is_sqlite() {
        true => Duration::ZERO,
        false => YOUNG,
    };
    let state = app.store.state();
    for disk in app.repository.older_snapshots(young).await? {
        if !is_named(&state, &disk) {
            tracing::info!(disk, "removing what an interrupted import or snapshot left");
            app.repository.delete(&disk).await?;
        }
    }
    sweep_uploads(&app.uploads_dir(), young)?;
    Ok(())
}

fn sweep_uploads(dir: &std::path::Path, young: Duration) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        // Only what this program names so: other files are not ours.
        let is_ours = name.to_string_lossy().ends_with(".upload");
        let age =
            || -> io::Result<Duration> { Ok(entry.metadata()?.modified()?.elapsed().unwrap_or_default()) };
        if is_ours && age()? >= young {
            tracing::info!(file = %name.to_string_lossy(), "removing what an interrupted import left");
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Removes chunks that no disk needs, now and then: at the beginning, when a disk has gone or one was not stored whole, and
/// once a day.
struct Collector {
    due: Instant,
}

impl Collector {
    async fn work(&mut self, app: &App) {
        if Instant::now() < self.due {
            return;
        }
        self.due = Instant::now() + COLLECT;
        let collected = tokio::select! {
            () = app.ending.cancelled() => return,
            collected = app.repository.collect(|| app.store.is_leader()) => collected,
        };
        match collected {
            Ok(collected) if collected.removed > 0 => tracing::info!(
                removed = collected.removed,
                bytes = collected.removed_bytes,
                kept = collected.kept,
                "chunks that no disk needs are gone"
            ),
            Ok(_) => {}
            Err(error) => {
                tracing::error!(error = %hearth_log::chain(&error), "collecting chunks that no disk needs")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_kept_for_a_day_and_not_without_end() {
        let mut state = State::default();
        let mut tx = Tx::new(&mut state, 0);
        let mut token = |n: usize, outlived_at| {
            tx.put(ClientToken {
                id: format!("{n:06}"),
                account_id: "1".into(),
                region: "local-1".into(),
                parameters_hash: String::new(),
                resource_id: String::new(),
                created_at: 0,
                outlived_at,
            });
        };
        token(0, None);
        for n in 1..=KEPT_TOKENS + 2 {
            token(n, Some(n as i64));
        }
        tx.finish().unwrap();
        assert_eq!(old_tokens(&state, 0), ["000001", "000002"]);
        assert_eq!(
            old_tokens(&state, KEEP_TOKENS_MS + 3),
            ["000001", "000002", "000003"]
        );
    }
}
