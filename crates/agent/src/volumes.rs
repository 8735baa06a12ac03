//! Volumes that no instance has: those that intents want erased are erased, and the control plane hears of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use hearth_api::agent::Intents;
use hearth_api::agent::volume_intent::Desired;
use tokio::sync::watch;

use crate::instance::Context;
use crate::paths::is_plain_id;
use crate::volume;

/// Between attempts to erase what could not be erased.
const RETRY: Duration = Duration::from_secs(5);

/// Tells the worker what is to be erased. The worker ends when this is dropped.
pub struct Volumes {
    /// With the epochs of their newest attachments.
    erased: watch::Sender<BTreeMap<String, u64>>,
}

impl Volumes {
    pub fn start(context: Arc<Context>) -> Volumes {
        let (erased, wanted) = watch::channel(BTreeMap::new());
        tokio::spawn(work(context, wanted));
        Volumes { erased }
    }

    pub fn want(&self, intents: &Intents) {
        // Whatever the control plane says, not under an instance.
        let used = intents.instances.iter().flat_map(|intent| &intent.volumes);
        let used: BTreeSet<&str> = used.map(|volume| volume.volume_id.as_str()).collect();
        let wanted = intents.volumes.iter().filter(|volume| {
            let id = volume.volume_id.as_str();
            volume.desired() == Desired::Erased && is_plain_id(id) && !used.contains(id)
        });
        let wanted = wanted.map(|volume| (volume.volume_id.clone(), volume.epoch));
        let wanted: BTreeMap<String, u64> = wanted.collect();
        self.erased.send_if_modified(|now| {
            let is_news = *now != wanted;
            *now = wanted;
            is_news
        });
    }
}

async fn work(context: Arc<Context>, mut wanted: watch::Receiver<BTreeMap<String, u64>>) {
    let mut done: BTreeSet<String> = BTreeSet::new();
    loop {
        let now = wanted.borrow_and_update().clone();
        done.retain(|id| now.contains_key(id));
        let left: Vec<_> = now.iter().filter(|(id, _)| !done.contains(*id)).collect();
        let is_left = !left.is_empty();
        for (id, epoch) in left {
            if erase(&context, id, *epoch).await {
                done.insert(id.clone());
            }
        }
        if is_left {
            context.images.trim().await;
        }
        context.board.post_erased(&done);
        let is_done = done.len() == now.len();
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY), if !is_done => {}
        }
    }
}

/// Answers whether nothing of the volume is left.
async fn erase(context: &Context, id: &str, epoch: u64) -> bool {
    let (dir, volume_id) = (context.dir.clone(), id.to_owned());
    let erased = tokio::task::spawn_blocking(move || volume::erase(&dir, &volume_id, epoch)).await;
    match erased {
        Ok(Ok(())) => {
            tracing::info!(volume = id, "a volume was erased");
            true
        }
        Ok(Err(error)) => {
            tracing::error!(volume = id, error = %crate::chain(&error), "erasing a volume; trying again");
            false
        }
        Err(_) => false,
    }
}
