//! What the agent would report right now: written by the instances' actors, read by the session.

use std::collections::{BTreeMap, BTreeSet};

use hearth_api::agent::{Capacity, InstanceObservation, Observation};
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
}

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
            capacity: Some(capacity),
        }
    }
}
