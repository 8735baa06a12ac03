//! Simulated hosts: thousands of agents in one process that speak the real protocol over mutual TLS, without machines
//! behind them. What the control plane does with many hosts is measured and tested with them.
//!
//! A simulated agent enrols, holds a session, keeps its intents, acknowledges them, and says of each instance what a real
//! one would: running after a while, ended, gone. Latencies and faults are settings ([`Behaviour`]).

mod agent;
mod fleet;
mod hearthd;
mod instances;
mod volumes;

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use hearth_api::agent::Capacity;
use tokio::sync::Semaphore;

pub use fleet::Fleet;
pub use hearthd::Hearthd;

/// How the agents of a fleet behave.
#[derive(Debug, Clone)]
pub struct Behaviour {
    pub capacity: Capacity,
    /// From the arrival of an intent until the host says that the instance runs, has ended, or is gone.
    pub acts_after: Duration,
    /// From the arrival of intents until they are acknowledged.
    pub acknowledges_after: Duration,
    /// The share of intents that the agent forgets, as one does whose disk is full: 0 to 1.
    pub forgets: f64,
    /// How long a session lasts on average before it is cut, and dialled anew; `None`: for ever.
    pub session: Option<Duration>,
}

impl Default for Behaviour {
    /// A host of 64 vCPUs, 256 GiB of memory and 8 TiB of disk that does everything at once.
    fn default() -> Self {
        Self {
            capacity: Capacity {
                vcpus: 64,
                memory_mib: 256 << 10,
                disk_bytes: 8 << 40,
                cpus: 64,
            },
            acts_after: Duration::ZERO,
            acknowledges_after: Duration::ZERO,
            forgets: 0.0,
            session: None,
        }
    }
}

/// Connections that a fleet begins at the same time: from one address the control plane waits for so many handshakes at
/// most.
const DIALS: usize = 64;

/// What all agents of a fleet share.
#[derive(Debug)]
pub struct Shared {
    pub behaviour: Behaviour,
    pub counters: Counters,
    dials: Semaphore,
}

impl Shared {
    fn new(behaviour: Behaviour) -> Self {
        Self {
            behaviour,
            counters: Counters::default(),
            dials: Semaphore::new(DIALS),
        }
    }
}

/// What all agents of a fleet together received and said.
#[derive(Debug, Default)]
pub struct Counters {
    /// Messages from the control plane.
    pub messages: AtomicU64,
    /// Bytes of these messages, as protobuf.
    pub bytes: AtomicU64,
    /// Sessions that began.
    pub sessions: AtomicU64,
    /// Instances that were said to run.
    pub running: AtomicU64,
}
