//! What the leader does that others do not: it makes what a new cloud begins with, and tidies up at the beginning of its
//! term.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use crate::app::App;
use crate::state::Cloud;
use crate::store::bootstrap::{Layout, bootstrap};
use crate::store::{CommitError, Standing, Store};
use crate::vault::{self, Vault};
use crate::{earlier, janitor};

/// Waits until this process is the leader or follows one. Answers the owner's account id, and the keys of the cloud's
/// secrets, of which one is in the data directory.
///
/// # Errors
/// The store fails, or the data directory has not the key of this cloud.
pub async fn begin(store: &Store, layout: &Layout, data_dir: &Path) -> anyhow::Result<(String, Vault)> {
    let mut standing = store.standing();
    loop {
        let stands = standing.borrow_and_update().clone();
        match stands {
            Standing::Leader(_) => match lead(store, layout, data_dir).await {
                Err(error) if matches!(error.downcast_ref(), Some(CommitError::NotLeader)) => {}
                begun => return begun,
            },
            Standing::Follower(Some(_)) => {
                store.refresh().await;
                // A leader of before seals seals nothing: until there is another, there is nothing to open.
                if let Some(cloud) = store.state().get::<Cloud>(Cloud::ID)
                    && cloud.seal.plain().is_none()
                {
                    return Ok((cloud.owner_id.clone(), Vault::open(data_dir, cloud)?));
                }
            }
            Standing::Follower(None) => {}
        }
        let _ = tokio::time::timeout(LOOK, standing.changed()).await;
    }
}

/// Makes what is missing of a cloud.
async fn lead(store: &Store, layout: &Layout, data_dir: &Path) -> anyhow::Result<(String, Vault)> {
    // As it is now: what was read at the start may be older than the lease.
    let found = store
        .transact(|tx| Ok::<_, CommitError>(tx.get::<Cloud>(Cloud::ID).cloned()))
        .await?;
    // Where something is sealed, no other key takes the place of one that is missing.
    let root = match found.filter(|cloud| cloud.seal.plain().is_none()) {
        Some(cloud) => Vault::open(data_dir, &cloud)?.root,
        None => vault::root_of_new(data_dir)?,
    };
    let layout = layout.clone();
    let owner_id = store
        .transact(move |tx| bootstrap(tx, &layout, &root).map_err(anyhow::Error::from))
        .await?;
    let state = store.state();
    let cloud = state.get::<Cloud>(Cloud::ID).context("the state has no cloud")?;
    Ok((owner_id, Vault::open(data_dir, cloud)?))
}

/// Between looks at a cloud that its leader has not made yet.
const LOOK: Duration = Duration::from_millis(100);

/// For the repository's first answer. Instances need it less than they need `hearthd`.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// At the beginning of a term, before anything else.
///
/// # Errors
/// The store fails, or the repository cannot be read, or is another cloud's. That it cannot be reached is no error.
pub async fn take_over(app: &App) -> anyhow::Result<()> {
    let claim = app.repository.claim(&app.cloud.owner_id);
    let why = match tokio::time::timeout(FIRST_ANSWER, claim).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) if error.is_passing() => Some(format!("{:#}", anyhow::Error::from(error))),
        Ok(Err(error)) => return Err(error.into()),
        Err(_) => Some(format!("no answer in {} s", FIRST_ANSWER.as_secs())),
    };
    if let Some(why) = why {
        let place = app.config.repository();
        tracing::warn!(
            why,
            "the repository {place} cannot be reached: images and snapshots have to wait for it"
        );
        return Ok(());
    }
    janitor::sweep(app).await?;
    earlier::take_in(app).await
}

/// Takes over whenever this process becomes the leader; `epoch` is that of a term that has begun already.
pub async fn run(app: Arc<App>, layout: Layout, epoch: Option<u64>) {
    let mut standing = app.store.standing();
    let mut done = epoch;
    loop {
        let stands = standing.borrow_and_update().clone();
        if let Standing::Leader(term) = stands
            && done != Some(term.epoch)
        {
            done = Some(term.epoch);
            let (layout, own) = (layout.clone(), Arc::clone(&app));
            // This makes the state the newest, too: nothing is swept by what an older one says.
            let began = app
                .store
                .transact(move |tx| bootstrap(tx, &layout, &own.vault.root).map_err(anyhow::Error::from));
            let began = match began.await {
                Ok(_) => take_over(&app).await,
                Err(error) => Err(error),
            };
            if let Err(error) = began {
                tracing::error!(error = format!("{error:#}"), "taking over");
            }
        }
        tokio::select! {
            () = app.ending.cancelled() => return,
            changed = standing.changed() => if changed.is_err() {
                return;
            },
        }
    }
}
