//! What the leader does that others do not: it makes what a new cloud begins with, and tidies up at the beginning of its
//! term.

use std::sync::Arc;

use crate::app::App;
use crate::state::Cloud;
use crate::store::bootstrap::{Layout, bootstrap};
use crate::store::{CommitError, Standing, Store};
use crate::{digests, janitor};

/// Waits until this process is the leader or follows one. Answers the owner's account id.
///
/// # Errors
/// The store fails.
pub async fn begin(store: &Store, layout: &Layout) -> Result<String, CommitError> {
    let mut standing = store.standing();
    loop {
        let stands = standing.borrow_and_update().clone();
        match stands {
            Standing::Leader(_) => {
                let layout = layout.clone();
                match store.transact(move |tx| Ok(bootstrap(tx, &layout))).await {
                    Err(CommitError::NotLeader) => {}
                    made => return made,
                }
            }
            Standing::Follower(Some(_)) => {
                store.refresh().await;
                if let Some(cloud) = store.state().get::<Cloud>(Cloud::ID) {
                    return Ok(cloud.owner_id.clone());
                }
            }
            Standing::Follower(None) => {}
        }
        let _ = tokio::time::timeout(LOOK, standing.changed()).await;
    }
}

/// Between looks at a cloud that its leader has not made yet.
const LOOK: std::time::Duration = std::time::Duration::from_millis(100);

/// At the beginning of a term, before anything else.
///
/// # Errors
/// The store fails, or the images' directory cannot be read.
pub async fn take_over(app: &App) -> anyhow::Result<()> {
    janitor::sweep_images(app)?;
    digests::complete(app).await
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
            let layout = layout.clone();
            // This makes the state the newest, too: nothing is swept by what an older one says.
            let began = app
                .store
                .transact(move |tx| Ok::<_, CommitError>(bootstrap(tx, &layout)));
            let began = match began.await {
                Ok(_) => take_over(&app).await,
                Err(error) => Err(error.into()),
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
