//! WatchInstances: what is, then what changes. A watcher that reads slowly misses states in between, never the newest:
//! nothing is queued for it but ids, and if even those are too many it gets everything anew.

use std::collections::BTreeSet;
use std::sync::Arc;

use hearth_api::v1::{Instance, WatchInstancesRequest, watch_server};
use hearth_api::{ApiError, Kind};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{answer, input};
use crate::app::App;
use crate::call;
use crate::{state, views};

/// Instances that wait for the network.
const AHEAD: usize = 16;

type Sender = mpsc::Sender<Result<Instance, Status>>;

pub(super) struct Watch(pub(super) Arc<App>);

#[tonic::async_trait]
impl watch_server::Watch for Watch {
    type WatchInstancesStream = ReceiverStream<Result<Instance, Status>>;

    async fn watch_instances(
        &self,
        request: Request<WatchInstancesRequest>,
    ) -> Result<Response<Self::WatchInstancesStream>, Status> {
        answer(watch(&self.0, request.into_inner()).await)
    }
}

async fn watch(
    app: &Arc<App>,
    request: WatchInstancesRequest,
) -> Result<ReceiverStream<Result<Instance, Status>>, ApiError> {
    let wanted = match request.instance_ids.as_slice() {
        [] => None,
        ids => Some(input::ids(Kind::Instance, ids, "InstanceId")?),
    };
    // Before the first look, so that nothing falls between.
    let changes = app.store.bus().watch_instances();
    let state = app.state();
    input::all_known(Kind::Instance, &request.instance_ids, |id| {
        state.get::<state::Instance>(id).is_some()
    })?;
    let first = views::instances(&state, wanted.as_deref());
    let (sender, receiver) = mpsc::channel(AHEAD);
    let app = Arc::clone(app);
    call::spawn(async move {
        tokio::select! {
            () = sender.closed() => {}
            () = app.ending.cancelled() => {}
            () = follow(&app, wanted, first, changes, &sender) => {}
        }
    });
    Ok(ReceiverStream::new(receiver))
}

async fn follow(
    app: &App,
    wanted: Option<Vec<String>>,
    first: Vec<Instance>,
    mut changes: Receiver<Arc<str>>,
    sender: &Sender,
) {
    if !send(sender, first).await {
        return;
    }
    let wanted: Option<BTreeSet<String>> = wanted.map(BTreeSet::from_iter);
    loop {
        let Some(changed) = gather(&mut changes, wanted.as_ref()).await else {
            return;
        };
        let ids: Option<Vec<String>> = match changed {
            Changed::Some(ids) if ids.is_empty() => continue,
            Changed::Some(ids) => Some(ids.into_iter().collect()),
            Changed::Everything => wanted.as_ref().map(|ids| ids.iter().cloned().collect()),
        };
        let now = views::instances(&app.state(), ids.as_deref());
        if !send(sender, now).await {
            return;
        }
    }
}

enum Changed {
    Some(BTreeSet<String>),
    /// Too much changed to say what.
    Everything,
}

/// Waits for a change and takes all that have come by then.
async fn gather(changes: &mut Receiver<Arc<str>>, wanted: Option<&BTreeSet<String>>) -> Option<Changed> {
    let is_wanted = |id: &str| wanted.is_none_or(|wanted| wanted.contains(id));
    let mut ids = BTreeSet::new();
    match changes.recv().await {
        Ok(id) if is_wanted(&id) => ids.insert(id.to_string()),
        Ok(_) => false,
        Err(RecvError::Lagged(_)) => return Some(Changed::Everything),
        Err(RecvError::Closed) => return None,
    };
    loop {
        match changes.try_recv() {
            Ok(id) if is_wanted(&id) => ids.insert(id.to_string()),
            Ok(_) => false,
            Err(TryRecvError::Lagged(_)) => return Some(Changed::Everything),
            Err(TryRecvError::Empty | TryRecvError::Closed) => return Some(Changed::Some(ids)),
        };
    }
}

/// Whether the watcher is still there.
async fn send(sender: &Sender, instances: Vec<Instance>) -> bool {
    for instance in instances {
        if sender.send(Ok(instance)).await.is_err() {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use tokio::sync::broadcast;

    use super::*;

    #[tokio::test]
    async fn changes_coalesce_and_too_many_become_everything() {
        let (sender, mut changes) = broadcast::channel::<Arc<str>>(4);
        let say = |id: &str| sender.send(id.into()).unwrap();
        let wanted = BTreeSet::from(["i-1".to_owned()]);
        for id in ["i-1", "i-2", "i-1"] {
            say(id);
        }
        let Some(Changed::Some(ids)) = gather(&mut changes, Some(&wanted)).await else {
            panic!("too much")
        };
        assert_eq!(ids, wanted);
        for n in 0..9 {
            say(&format!("i-{n}"));
        }
        let changed = gather(&mut changes, Some(&wanted)).await;
        assert!(matches!(changed, Some(Changed::Everything)));
        drop(sender);
        while gather(&mut changes, None).await.is_some() {}
    }
}
