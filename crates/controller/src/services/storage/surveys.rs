//! The newest count of what lies in the repository. Counting reads the names of all objects: several who ask wait for one count,
//! and it goes on where they do not wait any more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hearth_api::{ApiError, ErrorCode};
use hearth_repository::{Repository, Survey};
use tokio::sync::watch;

use crate::store::now;

/// An older count is made anew.
const FRESH: Duration = Duration::from_secs(60);
/// How long who asks waits. A call has 60 seconds.
const PATIENCE: Duration = Duration::from_secs(45);

#[derive(Debug)]
pub struct Counted {
    pub survey: Survey,
    /// When it began. Milliseconds since the epoch.
    pub at: i64,
    ended: Instant,
}

#[derive(Debug, Default)]
pub struct Surveys(Arc<Mutex<Slot>>);

#[derive(Debug, Default)]
struct Slot {
    newest: Option<Arc<Counted>>,
    /// What the count under way has come to: its sender is dropped where it panics.
    under_way: Option<watch::Receiver<Option<Outcome>>>,
}

type Outcome = Result<Arc<Counted>, ApiError>;

impl Surveys {
    /// # Errors
    /// The repository cannot be read, or counting takes too long for a call.
    pub async fn newest(&self, repository: &Repository) -> Outcome {
        let mut heard = {
            let mut slot = lock(&self.0);
            if let Some(newest) = slot
                .newest
                .as_ref()
                .filter(|newest| newest.ended.elapsed() < FRESH)
            {
                return Ok(Arc::clone(newest));
            }
            let under_way = slot.under_way.clone();
            // One that panicked is not waited for.
            let under_way = under_way.filter(|heard| heard.has_changed().is_ok());
            match under_way {
                Some(heard) => heard,
                None => {
                    let heard = self.count(repository.clone());
                    slot.under_way = Some(heard.clone());
                    heard
                }
            }
        };
        let outcome = tokio::time::timeout(PATIENCE, heard.wait_for(Option::is_some)).await;
        let Ok(outcome) = outcome else {
            let message = "The repository is large, and is still being counted. Ask again in a minute.";
            return Err(ApiError::new(ErrorCode::Unavailable, message));
        };
        let outcome = outcome.ok().and_then(|outcome| outcome.clone());
        let ended = || {
            let message =
                "Counting what lies in the repository was cut off; the control plane's log may say why.";
            Err(ApiError::new(ErrorCode::InternalError, message))
        };
        outcome.unwrap_or_else(ended)
    }

    fn count(&self, repository: Repository) -> watch::Receiver<Option<Outcome>> {
        let (tell, heard) = watch::channel(None);
        let slot = Arc::clone(&self.0);
        tokio::spawn(async move {
            let at = now();
            let began = Instant::now();
            let outcome = match repository.survey().await {
                Ok(survey) => {
                    let (disks, took) = (survey.snapshots.len(), began.elapsed());
                    tracing::debug!(disks, ?took, "what lies in the repository was counted");
                    let ended = Instant::now();
                    Ok(Arc::new(Counted { survey, at, ended }))
                }
                Err(error) => Err(ApiError::internal(&error)),
            };
            let mut slot = lock(&slot);
            slot.under_way = None;
            if let Ok(counted) = &outcome {
                slot.newest = Some(Arc::clone(counted));
            }
            drop(slot);
            tell.send_replace(Some(outcome));
        });
        heard
    }
}

fn lock(slot: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}
