//! Scrubs of the repository: one at a time, as the row says that there shall be one. One that is cut off by the end of the process
//! begins again.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hearth_log::chain;
use hearth_repository::{Damage, Error, Place, Repository, Scrubbed};

use crate::app::App;
use crate::state::{MAX_DAMAGES, Scrub, ScrubState, Snapshot, State, StorageDamage};
use crate::store::{CommitError, now};

/// Between two that nobody asks for.
const PERIOD_MS: i64 = 30 * 24 * 3600 * 1000;
/// Between looks whether one is due.
const LOOK: Duration = Duration::from_secs(3600);
/// Between notes of how far it is.
const TELL: Duration = Duration::from_secs(2);
/// After a failure of the database.
const AGAIN: Duration = Duration::from_secs(5);
/// Disks that a damage names at most.
const NAMED: usize = 16;

/// Runs until the process ends.
pub async fn run(app: Arc<App>) {
    let mut states = app.store.subscribe();
    loop {
        let next = async {
            let found = states.wait_for(|state| wanted(state).is_some()).await;
            found.ok().and_then(|state| wanted(&state).cloned())
        };
        let row = tokio::select! {
            () = app.ending.cancelled() => return,
            found = next => found,
            () = tokio::time::sleep(LOOK) => {
                begin_if_due(&app).await;
                continue;
            }
        };
        // The store is closed.
        let Some(row) = row else { return };
        let is_done = match app.store.is_leader() {
            true => tokio::select! {
                () = app.ending.cancelled() => return,
                is_done = scrub(&app, &row) => is_done,
            },
            false => false,
        };
        if !is_done {
            tokio::select! {
                () = app.ending.cancelled() => return,
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }
}

fn wanted(state: &State) -> Option<&Scrub> {
    state.get::<Scrub>(Scrub::ID).filter(|row| row.is_running())
}

/// Whether the last one, or what there is to be read, is old.
fn is_due(state: &State, now: i64) -> bool {
    match state.get::<Scrub>(Scrub::ID) {
        Some(last) => last.ended_at.is_some_and(|at| at <= now - PERIOD_MS),
        None => state
            .all::<Snapshot>()
            .any(|row| row.started_at <= now - PERIOD_MS),
    }
}

async fn begin_if_due(app: &App) {
    if !app.store.is_leader() || !is_due(&app.store.state(), now()) {
        return;
    }
    let begun = app.store.transact(|tx| {
        if is_due(tx, tx.now()) {
            tx.put(Scrub::begin("", tx.now()));
        }
        Ok::<_, CommitError>(())
    });
    if let Err(error) = begun.await {
        tracing::warn!(error = %chain(&error), "beginning a scrub of the repository");
    }
}

/// Answers whether its end is written down.
async fn scrub(app: &App, row: &Scrub) -> bool {
    tracing::info!(copy = row.copy, "a scrub of the repository begins");
    let ended = match read(app, row).await {
        Ok(Some(scrubbed)) => completed(row.clone(), scrubbed),
        // Another one leads.
        Ok(None) => return false,
        Err(error) => {
            tracing::error!(error = %chain(&error), "scrubbing the repository");
            Scrub {
                state: ScrubState::Failed,
                failure: "The repository, or the copy, cannot be read; the control plane's log says why."
                    .to_owned(),
                ..row.clone()
            }
        }
    };
    let written = app.store.transact(move |tx| {
        let ended_at = Some(tx.now());
        tx.put(Scrub {
            ended_at,
            ..ended.clone()
        });
        tx.event("storage.scrubbed", Scrub::ID);
        Ok::<_, CommitError>(())
    });
    written.await.is_ok()
}

/// `None`: this process does not lead any more.
async fn read(app: &App, row: &Scrub) -> Result<Option<Scrubbed>, Error> {
    let copy = open_copy(&row.copy)?;
    let of = app.repository.objects().await?;
    let checked = AtomicU64::new(0);
    let mut scrubbing = pin!(
        app.repository
            .scrub_telling(copy.as_ref(), |objects| checked.store(objects, Ordering::Relaxed))
    );
    let mut ticks = tokio::time::interval(TELL);
    let mut told = 0;
    loop {
        tokio::select! {
            scrubbed = &mut scrubbing => return scrubbed.map(Some),
            _ = ticks.tick() => {}
        }
        if !app.store.is_leader() {
            return Ok(None);
        }
        let checked = checked.load(Ordering::Relaxed);
        // A commit for each per cent at most.
        if checked - told < (of / 100).max(1) {
            continue;
        }
        told = checked;
        let noted = app.store.transact(move |tx| {
            tx.update::<Scrub>(Scrub::ID, |row| (row.checked, row.of) = (checked, of));
            Ok::<_, CommitError>(())
        });
        if let Err(error) = noted.await {
            tracing::warn!(error = %chain(&error), "noting how far a scrub of the repository is");
        }
    }
}

/// # Errors
/// What names a bucket is wrong.
fn open_copy(place: &str) -> Result<Option<Repository>, Error> {
    // It was checked when it was asked for.
    let place: Option<Place> = place.parse().ok().filter(|_| !place.is_empty());
    place.map(|place| Repository::open(&place)).transpose()
}

fn completed(row: Scrub, mut scrubbed: Scrubbed) -> Scrub {
    scrubbed
        .damages
        .sort_by(|one, other| one.object.cmp(&other.object));
    let repaired = scrubbed.damages.iter().filter(|damage| damage.repaired).count();
    for damage in &scrubbed.damages {
        tracing::error!(
            object = damage.object,
            reason = damage.reason,
            disks = damage.snapshots.len(),
            repaired = damage.repaired,
            "a part of disks in the repository is damaged"
        );
    }
    tracing::info!(
        objects = scrubbed.objects,
        damages = scrubbed.damages.len(),
        repaired,
        "a scrub of the repository has ended"
    );
    let kept = |damage: &Damage| StorageDamage {
        object: damage.object.clone(),
        reason: damage.reason.clone(),
        repaired: damage.repaired,
        disks: damage.snapshots.iter().take(NAMED).cloned().collect(),
    };
    Scrub {
        state: ScrubState::Completed,
        checked: scrubbed.objects,
        of: scrubbed.objects,
        damage_count: scrubbed.damages.len() as u64,
        repaired_count: repaired as u64,
        damages: scrubbed.damages.iter().take(MAX_DAMAGES).map(kept).collect(),
        ..row
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Scope, Tx};

    #[test]
    fn a_scrub_is_due_a_month_after_the_last_or_after_the_first_snapshot() {
        let mut state = State::default();
        assert!(!is_due(&state, i64::MAX));
        let mut tx = Tx::new(&mut state, 1000);
        let scope = Scope::new("1", "local-1");
        tx.put(Snapshot::of_disk("snap-1", &scope, None, 1, 1000));
        tx.finish().unwrap();
        assert!(!is_due(&state, 999 + PERIOD_MS));
        assert!(is_due(&state, 1000 + PERIOD_MS));
        let mut tx = Tx::new(&mut state, 2000);
        tx.put(Scrub::begin("", 2000));
        tx.finish().unwrap();
        assert!(!is_due(&state, i64::MAX), "it runs");
        let mut tx = Tx::new(&mut state, 3000);
        tx.update::<Scrub>(Scrub::ID, |row| {
            (row.state, row.ended_at) = (ScrubState::Failed, Some(3000));
        });
        tx.finish().unwrap();
        assert!(!is_due(&state, 2999 + PERIOD_MS));
        assert!(is_due(&state, 3000 + PERIOD_MS));
    }

    #[test]
    fn what_a_scrub_found_is_kept_within_bounds() {
        let damage = |number: usize| Damage {
            object: format!("chunks/{number:06}"),
            reason: "it is not there".to_owned(),
            snapshots: (0..100).map(|of| format!("snap-{of:03}")).collect(),
            repaired: number.is_multiple_of(2),
        };
        let scrubbed = Scrubbed {
            objects: 5000,
            damages: (0..2 * MAX_DAMAGES).rev().map(damage).collect(),
        };
        let row = completed(Scrub::begin("/copy", 7), scrubbed);
        assert_eq!((row.damage_count, row.repaired_count), (2000, 1000));
        assert_eq!(
            (row.damages.len(), row.damages[0].object.as_str()),
            (MAX_DAMAGES, "chunks/000000")
        );
        assert!(row.damages.iter().all(|damage| damage.disks.len() == NAMED));
        assert_eq!((row.copy.as_str(), row.percent()), ("/copy", 100));
    }
}
