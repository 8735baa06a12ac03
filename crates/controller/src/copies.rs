//! Snapshots that are written anew, under another data key than what they are copied from: one after the other. One that is cut
//! short begins again; what it has stored is removed by the next collection.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use hearth_log::chain;
use hearth_repository::{CHUNK, Error};

use crate::app::App;
use crate::disks::{self, Litter};
use crate::keys::KeyError;
use crate::state::{Contents, Copying, Disk, Snapshot, State};
use crate::store::CommitError;

/// Progress is written down when it has grown by so many per cent.
const STEP: u32 = 5;
/// After a failure of the database or the repository.
const AGAIN: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
enum CopyError {
    #[error("opening a data key")]
    Key(#[from] KeyError),
    #[error(transparent)]
    Repository(#[from] Error),
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// It was deleted meanwhile.
    #[error("nobody wants it any more")]
    Unwanted,
    #[error(
        "It would store more than {0} GiB, which the disks of an account's images and snapshots may have together. Delete \
         snapshots, and copy it again."
    )]
    Limit(u32),
}

/// Runs until the process ends.
pub async fn run(app: Arc<App>) {
    let mut states = app.store.subscribe();
    loop {
        let next = async {
            let found = states.wait_for(|state| next(state).is_some()).await;
            found.ok().and_then(|state| next(&state).cloned())
        };
        let row = tokio::select! {
            () = app.ending.cancelled() => return,
            found = next => found,
        };
        // The store is closed.
        let Some(row) = row else { return };
        let is_done = match app.store.is_leader() {
            true => tokio::select! {
                () = app.ending.cancelled() => return,
                is_done = copy(&app, &row) => is_done,
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

fn next(state: &State) -> Option<&Snapshot> {
    state.first_by(&Snapshot::BY_COPYING, Snapshot::COPIED)
}

/// Answers whether there is nothing more to be done.
async fn copy(app: &App, row: &Snapshot) -> bool {
    let Some(copying) = row.copying() else {
        return true;
    };
    let litter = Litter::of(app);
    let failed = match write(app, row, copying).await {
        Ok(()) => {
            litter.keep();
            return true;
        }
        Err(CopyError::Unwanted) => return true,
        Err(error) => error,
    };
    tracing::error!(snapshot = row.id, error = %chain(&failed), "writing a copy anew");
    let why = match &failed {
        CopyError::Key(error @ (KeyError::Gone(_) | KeyError::State { .. })) => error.to_string(),
        CopyError::Limit(_) => failed.to_string(),
        CopyError::Repository(Error::Damaged { .. } | Error::NoSuchSnapshot(_)) => {
            "Its source cannot be read; the control plane's log says why.".to_owned()
        }
        CopyError::Key(_) => "A data key cannot be opened; the control plane's log says why.".to_owned(),
        // It may be otherwise later.
        CopyError::Repository(_) | CopyError::Commit(_) | CopyError::Unwanted => return false,
    };
    let id = row.id.clone();
    let told = app.store.transact(move |tx| {
        tx.fail_snapshot(&id, &why);
        Ok::<_, CommitError>(())
    });
    told.await.is_ok()
}

async fn write(app: &App, row: &Snapshot, copying: &Copying) -> Result<(), CopyError> {
    let key = |encryption: &Option<_>, region: &str| {
        let key = encryption.as_ref().map(|of| disks::key(app, of, region));
        key.transpose()
    };
    let source_key = key(&copying.encryption, &copying.region)?;
    let reader = app.repository.read(&copying.source.name, source_key).await?;
    let mut writer = app
        .repository
        .write(None, key(&row.encryption, &row.region)?)
        .await?;
    let size = reader.snapshot().size;
    let mut chunks = std::pin::pin!(disks::chunks(&reader, 0));
    let (mut count, mut told) = (0, 0);
    let limit = app.config.image_gib_limit;
    while let Some(chunk) = chunks.next().await {
        let (index, chunk) = chunk?;
        writer.put(index, chunk).await?;
        count += 1;
        let [_, stored] = app.store.state().sum(&Snapshot::TOTAL, &row.account_id);
        if stored.saturating_add(count * CHUNK as u64) > u64::from(limit) << 30 {
            return Err(CopyError::Limit(limit));
        }
        let percent = index.saturating_mul(100) / size.div_ceil(CHUNK as u64).max(1);
        let percent = u32::try_from(percent).unwrap_or(0).min(99);
        if percent >= told + STEP {
            told = percent;
            progress(app, &row.id, percent).await?;
        }
    }
    let name = disks::new_name();
    let (snapshot, written) = writer.finish(&name, size).await?;
    tracing::info!(
        snapshot = row.id,
        chunks = written.chunks,
        new_bytes = written.new_bytes,
        "a copy was written anew"
    );
    let disk = Disk {
        name,
        size: snapshot.size,
        // Who reads the database learns nothing of what is encrypted.
        digest: String::new(),
    };
    let (id, stored) = (row.id.clone(), disk.name.clone());
    let completed = app.store.transact(move |tx| {
        still_wanted(tx, &id)?;
        tx.complete_snapshot(&id, disk, count * CHUNK as u64);
        Ok::<_, CopyError>(())
    });
    let completed = completed.await;
    // Of a commit that is not known to be done, the row may name it.
    if let Err(CopyError::Unwanted) = &completed {
        app.repository.delete(&stored).await?;
    }
    completed
}

fn still_wanted(state: &State, id: &str) -> Result<(), CopyError> {
    let row = state.get::<Snapshot>(id);
    let is_wanted = row.is_some_and(|row| row.copying().is_some());
    is_wanted.then_some(()).ok_or(CopyError::Unwanted)
}

async fn progress(app: &App, id: &str, percent: u32) -> Result<(), CopyError> {
    let id = id.to_owned();
    app.store
        .transact(move |tx| {
            still_wanted(tx, &id)?;
            tx.update::<Snapshot>(&id, |row| {
                if let Contents::Copying(copying) = &mut row.contents {
                    copying.percent = percent;
                }
            });
            Ok(())
        })
        .await
}
