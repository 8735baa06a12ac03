//! What the agent would report right now: written by the instances' actors, read by the session.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{SystemTime, UNIX_EPOCH};

use hearth_api::agent::{Capacity, InstanceObservation, Observation, Repair, SnapshotObservation};
use tokio::sync::watch;

/// The newest intents that the store has and the actors know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acknowledged {
    pub epoch: String,
    pub sequence: u64,
}

#[derive(Debug, Default)]
struct State {
    intents: Acknowledged,
    instances: BTreeMap<String, InstanceObservation>,
    erased_volumes: BTreeSet<String>,
    snapshots: Vec<SnapshotObservation>,
    /// The newest last.
    repairs: VecDeque<Repair>,
}

/// Repairs that are told of, and characters of each.
const MAX_REPAIRS: usize = 8;
const MAX_REPAIR: usize = 300;

/// Cheap to clone.
#[derive(Clone)]
pub struct Board {
    state: std::sync::Arc<watch::Sender<State>>,
}

impl Default for Board {
    fn default() -> Board {
        Board {
            state: std::sync::Arc::new(watch::Sender::default()),
        }
    }
}

impl Board {
    /// These intents are durable and have reached every actor. Said again when they come again: whoever sent them twice
    /// has not heard of it.
    pub fn acknowledge(&self, intents: &Acknowledged) {
        self.state.send_modify(|state| state.intents.clone_from(intents));
    }

    pub fn post(&self, observation: InstanceObservation) {
        self.state.send_if_modified(|state| {
            let old = state
                .instances
                .insert(observation.instance_id.clone(), observation.clone());
            old.as_ref() != Some(&observation)
        });
    }

    /// Of the volumes that are to be erased, those of which nothing is left.
    pub fn post_erased(&self, volumes: &BTreeSet<String>) {
        self.state.send_if_modified(|state| {
            let is_news = state.erased_volumes != *volumes;
            state.erased_volumes.clone_from(volumes);
            is_news
        });
    }

    /// Of the snapshots that intents ask for.
    pub fn post_snapshots(&self, snapshots: Vec<SnapshotObservation>) {
        self.state.send_if_modified(|state| {
            let is_news = state.snapshots != snapshots;
            state.snapshots = snapshots;
            is_news
        });
    }

    /// What somebody else had changed on the host, and has been mended.
    pub fn post_repair(&self, what: &str) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let repair = Repair {
            time: i64::try_from(now.as_millis()).unwrap_or(i64::MAX),
            what: what.chars().take(MAX_REPAIR).collect(),
        };
        self.state.send_modify(|state| {
            if state.repairs.len() == MAX_REPAIRS {
                state.repairs.pop_front();
            }
            state.repairs.push_back(repair);
        });
    }

    pub fn take_down(&self, instance_id: &str) {
        self.state
            .send_if_modified(|state| state.instances.remove(instance_id).is_some());
    }

    pub fn reader(&self) -> Reader {
        Reader {
            state: self.state.subscribe(),
        }
    }
}

pub struct Reader {
    state: watch::Receiver<State>,
}

impl Reader {
    /// Waits for a change since the last look. Many changes between two looks are one.
    pub async fn changed(&mut self) {
        if self.state.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    pub fn look(&mut self, capacity: Capacity) -> Observation {
        let state = self.state.borrow_and_update();
        Observation {
            intents_sequence: state.intents.sequence,
            intents_epoch: state.intents.epoch.clone(),
            instances: state.instances.values().cloned().collect(),
            erased_volumes: state.erased_volumes.iter().cloned().collect(),
            repairs: state.repairs.iter().cloned().collect(),
            capacity: Some(capacity),
            snapshots: state.snapshots.clone(),
        }
    }
}
