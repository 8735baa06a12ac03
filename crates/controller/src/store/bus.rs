//! Tells sessions and watchers what was committed. A hint, never the truth: whoever hears it reads the store.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{broadcast, watch};

/// Changed instances that a watcher may lag behind before it is told to read everything anew.
const WATCH_BACKLOG: usize = 1024;

#[derive(Debug, Clone)]
pub struct Bus {
    instances: broadcast::Sender<Arc<str>>,
    hosts: Arc<Mutex<HashMap<String, watch::Sender<()>>>>,
}

impl Default for Bus {
    fn default() -> Self {
        Self {
            instances: broadcast::channel(WATCH_BACKLOG).0,
            hosts: Arc::default(),
        }
    }
}

impl Bus {
    /// The ids of instances that change from now on.
    pub fn watch_instances(&self) -> broadcast::Receiver<Arc<str>> {
        self.instances.subscribe()
    }

    /// Changes after commits that touch the host, from now on. Several changes may look like one.
    pub fn watch_host(&self, host_id: &str) -> watch::Receiver<()> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.entry(host_id.to_owned()).or_default().subscribe()
    }

    pub(super) fn instance_changed(&self, instance_id: &str) {
        // Nobody watching is no error.
        let _ = self.instances.send(instance_id.into());
    }

    pub(super) fn host_touched(&self, host_id: &str) {
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = hosts.get(host_id) {
            host.send_replace(());
        }
    }
}
