//! What the agent would report right now: written by the instances' actors, read by the session.

use std::collections::BTreeMap;

use hearth_api::agent::{Capacity, InstanceObservation, Observation};
use tokio::sync::watch;

#[derive(Debug, Default)]
struct State {
    intents_generation: u64,
    instances: BTreeMap<String, InstanceObservation>,
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
    /// The intents of this generation have reached every actor.
    pub fn saw_generation(&self, generation: u64) {
        self.state.send_if_modified(|state| {
            let news = state.intents_generation != generation;
            state.intents_generation = generation;
            news
        });
    }

    pub fn post(&self, observation: InstanceObservation) {
        self.state.send_if_modified(|state| {
            let old = state
                .instances
                .insert(observation.instance_id.clone(), observation.clone());
            old.as_ref() != Some(&observation)
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
            intents_generation: state.intents_generation,
            instances: state.instances.values().cloned().collect(),
            capacity: Some(capacity),
        }
    }
}
