//! Where instances live.

use serde::{Deserialize, Serialize};

use super::{Host, Instance, store_gib};
use crate::state::{Concern, Index, Noun, State, Sum, Tx};

/// The life of an instance on a host: what it holds there of vCPUs, memory and instance store, and the host's duty for it. It exists from
/// the launch, or the start, on this host until the host has said that nothing is left. A stopped instance holds nothing. One
/// that starts on another host begins another life there, and leaves this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct Incarnation {
    /// The instance's, as long as the instance lives there.
    pub id: String,
    pub instance_id: String,
    pub host_id: String,
    /// Of the instance: its newest on this host. 0 in rows of before that was written down.
    pub run: u64,
    pub vcpus: u64,
    pub memory_mib: u64,
    /// Of the instance store.
    pub store_gib: u64,
    /// The instance lives elsewhere. The host forgets it, and keeps its volumes.
    pub is_left: bool,
}

/// As the database has it: also claims of before instances moved.
#[derive(Deserialize)]
struct Stored {
    #[serde(default)]
    id: Option<String>,
    instance_id: String,
    host_id: String,
    #[serde(default)]
    run: u64,
    vcpus: u64,
    memory_mib: u64,
    #[serde(default)]
    store_gib: u64,
    #[serde(default)]
    is_left: bool,
}

impl From<Stored> for Incarnation {
    fn from(stored: Stored) -> Self {
        Self {
            id: stored.id.unwrap_or_else(|| stored.instance_id.clone()),
            instance_id: stored.instance_id,
            host_id: stored.host_id,
            run: stored.run,
            vcpus: stored.vcpus,
            memory_mib: stored.memory_mib,
            store_gib: stored.store_gib,
            is_left: stored.is_left,
        }
    }
}

impl Incarnation {
    pub const BY_HOST: Index<Self> = Index::refers::<Host>("host", |i| vec![i.host_id.clone()]);
    /// Lives that are left, by their instance, which may be gone.
    pub const BY_LEAVER: Index<Self> = Index::new("leaver", |i| {
        i.is_left.then(|| i.instance_id.clone()).into_iter().collect()
    });
    /// vCPUs and MiB that are claimed of a host.
    pub const ON_HOST: Sum<Self> = Sum {
        name: "host",
        part: |i| Some((i.host_id.clone(), [i.vcpus, i.memory_mib])),
    };

    /// GiB of instance store that are claimed of a host.
    pub const STORE_ON_HOST: Sum<Self> = Sum {
        name: "store",
        part: |i| (i.store_gib > 0).then(|| (i.host_id.clone(), [i.store_gib, 0])),
    };

    pub fn new(instance: &Instance, host_id: &str, run: u64) -> Self {
        Self {
            id: instance.id.clone(),
            instance_id: instance.id.clone(),
            host_id: host_id.to_owned(),
            run,
            vcpus: instance.vcpus.into(),
            memory_mib: instance.memory_mib,
            store_gib: store_gib(&instance.store),
            is_left: false,
        }
    }

    /// The id of the life that an instance has left on a host.
    fn left_id(instance_id: &str, host_id: &str) -> String {
        format!("{instance_id}/{host_id}")
    }
}

impl Noun for Incarnation {
    /// What it was called at first.
    const KIND: &'static str = "claim";
    const INDEXES: &'static [Index<Self>] = &[
        Self::BY_HOST,
        Index::refers::<Instance>("instance", |i| {
            (!i.is_left).then(|| i.instance_id.clone()).into_iter().collect()
        }),
        Self::BY_LEAVER,
    ];
    const SUMS: &'static [Sum<Self>] = &[Self::ON_HOST, Self::STORE_ON_HOST];

    fn room(&self) -> Option<&str> {
        Some(&self.host_id)
    }

    fn concerns(&self, _: &State) -> Vec<Concern> {
        vec![Concern::Instance {
            host_id: self.host_id.clone(),
            instance_id: self.instance_id.clone(),
        }]
    }

    fn id(&self) -> &str {
        &self.id
    }
}

impl State {
    /// Where an instance lives; `None`: nowhere.
    pub fn incarnation(&self, instance_id: &str) -> Option<&Incarnation> {
        self.get(instance_id)
    }

    /// The hosts that an instance has left, and that have something of it still.
    pub fn left_by<'s>(&'s self, instance_id: &str) -> impl Iterator<Item = &'s str> + use<'s> {
        let left = self.by(&Incarnation::BY_LEAVER, instance_id);
        left.map(|life| life.host_id.as_str())
    }

    /// The life that an instance has left on a host, and of which the host has something still.
    pub fn left(&self, instance_id: &str, host_id: &str) -> Option<&Incarnation> {
        self.get(&Incarnation::left_id(instance_id, host_id))
    }
}

impl Tx<'_> {
    /// An instance that does not run leaves its host for another one.
    pub fn leave(&mut self, instance_id: &str, for_host: &str) {
        let Some(before) = self.incarnation(instance_id).cloned() else {
            return;
        };
        if before.host_id == for_host {
            return;
        }
        self.put(Incarnation {
            id: Incarnation::left_id(instance_id, &before.host_id),
            vcpus: 0,
            memory_mib: 0,
            store_gib: 0,
            is_left: true,
            ..before
        });
    }
}
