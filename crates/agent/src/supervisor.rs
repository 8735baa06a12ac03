//! Hands the intents out: to the store, to the networks, to one actor per instance.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use hearth_api::agent::instance_intent::Desired;
use hearth_api::agent::instance_observation::Phase;
use hearth_api::agent::{InstanceIntent, InstanceVolume, Intents, IntentsDelta};
use hearth_api::deltas;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::board::Acknowledged;
use crate::consoles;
use crate::instance::{Actor, Context, Wanted};
use crate::paths::is_plain_id;
use crate::record::Record;
use crate::snapshots::Snapshots;
use crate::store::{Records, StoreError};
use crate::volume;
use crate::volumes::Volumes;

/// Between attempts to store intents that the store refused.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// News of the control plane.
#[derive(Debug, Clone)]
pub enum News {
    /// All intents.
    All(Intents),
    Changes(IntentsDelta),
    /// The host belongs to the cloud no more: nothing that runs here is its own.
    Forgotten,
}

/// The epoch of the intents that a forgotten host has.
const FENCED: &str = "fenced";

pub struct Supervisor {
    context: Arc<Context>,
    /// The intents that are acted upon.
    intents: Intents,
    wanted: BTreeMap<String, Wanted>,
    actors: BTreeMap<String, watch::Sender<Wanted>>,
    /// Instances whose record a newer agent has written. They are reported as unknown and left alone.
    foreign: BTreeSet<String>,
    tasks: JoinSet<String>,
    volumes: Volumes,
    snapshots: Snapshots,
}

impl Supervisor {
    /// Takes up every instance that the store, the intents in it, or the data directory knows, and waits until
    /// all of them are on the board.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn start(context: Arc<Context>) -> Result<Supervisor, StoreError> {
        let store = context.store.clone();
        let read =
            tokio::task::spawn_blocking(move || Ok::<_, StoreError>((store.intents()?, store.records()?)));
        let (intents, records): (Option<Intents>, Records) = read.await??;
        let mut supervisor = Supervisor {
            volumes: Volumes::start(Arc::clone(&context)),
            snapshots: Snapshots::start(Arc::clone(&context)),
            context,
            intents: Intents::default(),
            wanted: BTreeMap::new(),
            actors: BTreeMap::new(),
            foreign: BTreeSet::new(),
            tasks: JoinSet::new(),
        };
        if let Some(intents) = intents {
            supervisor.note(intents);
            supervisor.note_bases().await?;
        }
        supervisor.context.images.trim().await;
        supervisor.forget_consoles().await?;
        for (id, error) in records.unreadable {
            supervisor.leave_alone(id, &error);
        }
        let mut records: BTreeMap<String, Record> = records
            .readable
            .into_iter()
            .map(|record| (record.instance_id.clone(), record))
            .collect();
        let known: BTreeSet<String> = records
            .keys()
            .chain(supervisor.wanted.keys())
            .cloned()
            .chain(directories(&supervisor.context))
            .filter(|id| !supervisor.foreign.contains(id))
            .collect();
        let (ready, mut all_ready) = mpsc::channel(1);
        for id in known {
            let record = records.remove(&id).unwrap_or_else(|| Record::new(&id));
            supervisor.begin(&id, record, ready.clone());
        }
        drop(ready);
        // Closed when the last actor has dropped its end.
        while all_ready.recv().await.is_some() {}
        supervisor.acknowledge();
        Ok(supervisor)
    }

    /// Serves intents until the sender hangs up.
    pub async fn run(mut self, mut news: mpsc::Receiver<News>) {
        // Intents that the store refused. Newer ones take their place.
        let mut refused: Option<Intents> = None;
        loop {
            let again = async {
                match refused.is_some() {
                    true => tokio::time::sleep(STORE_PAUSE).await,
                    false => std::future::pending().await,
                }
            };
            tokio::select! {
                message = news.recv() => match message {
                    Some(News::All(intents)) => refused = self.take(intents).await,
                    // What builds on intents that the store refused does not match: all come anew.
                    Some(News::Changes(delta)) => refused = self.change(delta).await.or(refused),
                    Some(News::Forgotten) => refused = self.take(self.fence()).await,
                    None => return,
                },
                () = again => if let Some(intents) = refused.take() {
                    refused = self.take(intents).await;
                },
                Some(ended) = self.tasks.join_next() => self.reap(ended),
            }
        }
    }

    /// The intents of a host that was forgotten: all that runs is ended at once, for its addresses may be another's by now,
    /// and volumes are kept. What was to be terminated still is. Their epoch is none of a store's, so that those of a cloud
    /// that the host joins later replace them.
    fn fence(&self) -> Intents {
        let mut instances = self.intents.instances.clone();
        for intent in &mut instances {
            intent.force = true;
            if intent.desired() != Desired::Terminated {
                intent.set_desired(Desired::Stopped);
            }
        }
        tracing::warn!(
            instances = instances.len(),
            "this host was forgotten by its cloud: its guests are ended, and their volumes are kept"
        );
        Intents {
            epoch: FENCED.to_owned(),
            instances,
            ..Intents::default()
        }
    }

    /// Waits until every actor of a host that goes down has ended its instance.
    pub async fn drain(mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "an instance was left to itself");
            }
        }
    }

    /// Acts upon changes, as [`Supervisor::take`].
    async fn change(&mut self, delta: IntentsDelta) -> Option<Intents> {
        let mut intents = self.intents.clone();
        let (after, sequence) = (delta.after, delta.sequence);
        if let Err(error) = deltas::apply(&mut intents, delta) {
            tracing::warn!(known = self.intents.sequence, after, sequence, "{error}");
            return None;
        }
        self.take(intents).await
    }

    /// Acts upon intents. Answers those that the store refused: what is acted upon must not be forgotten.
    async fn take(&mut self, intents: Intents) -> Option<Intents> {
        if intents.epoch == self.intents.epoch && intents.sequence < self.intents.sequence {
            tracing::warn!(
                offered = intents.sequence,
                known = self.intents.sequence,
                "ignoring intents older than those already heard of"
            );
            return None;
        }
        crate::fault::point("intents-heard");
        if let Err(error) = self.context.store.put_intents(&intents).await {
            tracing::error!(error = %crate::chain(&error), "storing intents; trying again");
            return Some(intents);
        }
        crate::fault::point("intents-stored");
        self.note(intents);
        for (id, wanted) in &self.wanted {
            if let Some(actor) = self.actors.get(id) {
                actor.send_if_modified(|now| {
                    let news = now.intent != wanted.intent;
                    *now = wanted.clone();
                    news
                });
            }
        }
        let new: Vec<String> = self
            .wanted
            .keys()
            .filter(|id| !self.actors.contains_key(*id) && !self.foreign.contains(*id))
            .cloned()
            .collect();
        for id in new {
            let (ready, _) = mpsc::channel(1);
            self.begin(&id, Record::new(&id), ready);
        }
        self.acknowledge();
        None
    }

    fn acknowledge(&self) {
        self.context.board.acknowledge(&Acknowledged {
            epoch: self.intents.epoch.clone(),
            sequence: self.intents.sequence,
        });
    }

    /// Notes what is wanted, for the networks and for the instances.
    fn note(&mut self, intents: Intents) {
        self.intents = intents;
        let intents = &self.intents;
        self.context.networks.want(intents);
        self.volumes.want(intents);
        self.snapshots.want(intents);
        let named: BTreeMap<&str, &InstanceIntent> = intents
            .instances
            .iter()
            .filter(|intent| is_plain_id(&intent.instance_id))
            .map(|intent| (intent.instance_id.as_str(), intent))
            .collect();
        let now = Instant::now();
        for (id, wanted) in &mut self.wanted {
            if !named.contains_key(id.as_str()) {
                wanted.intent = None;
            }
        }
        for (id, intent) in named {
            let wanted = self.wanted.entry(id.to_owned()).or_insert_with(|| Wanted {
                intent: None,
                arrived: now,
            });
            let run = wanted.intent.as_ref().map_or(0, |known| known.run);
            if intent.run > run {
                wanted.arrived = now;
            }
            wanted.intent = Some(intent.clone());
        }
        // An instance that neither an intent nor an actor knows is done with.
        let actors = &self.actors;
        self.wanted
            .retain(|id, wanted| wanted.intent.is_some() || actors.contains_key(id));
    }

    /// Writes down the bases of volumes that an older agent laid. What cannot be written keeps all images.
    async fn note_bases(&self) -> Result<(), StoreError> {
        let dir = self.context.dir.clone();
        let volumes: Vec<InstanceVolume> = self
            .intents
            .instances
            .iter()
            .flat_map(|intent| intent.volumes.iter().cloned())
            .filter(|volume| is_plain_id(&volume.volume_id) && is_plain_id(&volume.image_id))
            .collect();
        let noted = tokio::task::spawn_blocking(move || {
            for volume in volumes {
                if let Err(error) = volume::note_base(&dir, &volume.volume_id, &volume.image_id) {
                    tracing::warn!(volume = volume.volume_id, error = %crate::chain(&error), "noting its base");
                }
            }
        });
        Ok(noted.await?)
    }

    /// Consoles are forgotten when an instance is erased, too.
    async fn forget_consoles(&self) -> Result<(), StoreError> {
        let dir = self.context.dir.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || consoles::forget_old(&dir)).await? {
            tracing::warn!(%error, "forgetting consoles of instances that are gone");
        }
        Ok(())
    }

    /// Keeps an instance as it is: what this version cannot read, it can neither go on with nor begin anew.
    fn leave_alone(&mut self, id: String, error: &serde_json::Error) {
        tracing::error!(
            instance = id,
            %error,
            "a newer hearth-agent has written its record: it is kept as it is, and left alone; install that version again"
        );
        let mut seen = Record::new(&id).observation();
        seen.set_phase(Phase::Unknown);
        self.context.board.post(seen);
        self.foreign.insert(id);
    }

    fn begin(&mut self, id: &str, record: Record, ready: mpsc::Sender<()>) {
        let wanted = self.wanted.entry(id.to_owned()).or_insert_with(|| Wanted {
            intent: None,
            arrived: Instant::now(),
        });
        let (sender, receiver) = watch::channel(wanted.clone());
        self.actors.insert(id.to_owned(), sender);
        let actor = Actor::new(Arc::clone(&self.context), receiver, record);
        let id = id.to_owned();
        self.tasks.spawn(async move {
            actor.run(ready).await;
            id
        });
    }

    fn reap(&mut self, ended: Result<String, tokio::task::JoinError>) {
        let id = match ended {
            Ok(id) => id,
            // Going on without an actor would leave an instance to itself: let the service manager start
            // this agent again, which disturbs no instance.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        self.actors.remove(&id);
        match self.wanted.get(&id) {
            // An intent came back while its actor was forgetting.
            Some(wanted) if wanted.intent.is_some() => {
                let (ready, _) = mpsc::channel(1);
                self.begin(&id, Record::new(&id), ready);
            }
            _ => {
                self.wanted.remove(&id);
            }
        }
    }
}

/// Instances that left a directory; one that nothing else knows is reported as unknown, and kept.
fn directories(context: &Context) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(context.dir.instances()) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_plain_id(name))
        .collect()
}
