//! One simulated agent: from its join token to its sessions.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hearth_agent::endpoints::Endpoints;
use hearth_agent::identity::{self, Identity};
use hearth_agent::link;
use hearth_agent::paths::DataDir;
use hearth_api::agent::agent_message::Message as Up;
use hearth_api::agent::control_message::Message as Down;
use hearth_api::agent::control_plane_client::ControlPlaneClient;
use hearth_api::agent::{
    AgentMessage, ConsoleOutput, ControlMessage, Hello, Intents, KeyTaken, Observation, SnapshotIntent,
    SnapshotObservation, StorageReport, snapshot_observation, volume_intent,
};
use hearth_api::deltas;
use hearth_api::join::JoinToken;
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::Shared;
use super::instances::Instances;
use super::volumes::Volumes;

/// Between two sessions.
const PAUSE: Duration = Duration::from_millis(200);

pub struct Agent {
    identity: Identity,
    endpoints: Endpoints,
    shared: Arc<Shared>,
    instances: Instances,
    volumes: Volumes,
    /// The newest that it keeps, for whoever waits for something in it.
    intents: watch::Sender<Intents>,
    /// Snapshots that it has begun to store in this session.
    stored: BTreeSet<String>,
}

impl Agent {
    /// Enrols a host, which keeps its identity in `dir`.
    pub async fn join(
        dir: &Path,
        token: &JoinToken,
        endpoint: &str,
        zone: &str,
        shared: Arc<Shared>,
    ) -> Result<Self> {
        let dir = DataDir::create(dir).with_context(|| format!("making {}", dir.display()))?;
        let endpoints = Endpoints::new([endpoint.to_owned()]).context("no endpoint")?;
        let identity = identity::enroll(&dir, token, endpoints, zone).await?;
        Ok(Self {
            endpoints: Endpoints::new(identity.endpoints.clone()).context("no endpoint")?,
            identity,
            shared,
            instances: Instances::default(),
            volumes: Volumes::default(),
            intents: watch::channel(Intents::default()).0,
            stored: BTreeSet::new(),
        })
    }

    pub fn host_id(&self) -> &str {
        &self.identity.host_id
    }

    pub fn intents(&self) -> watch::Receiver<Intents> {
        self.intents.subscribe()
    }

    /// Holds one session after the other, for ever.
    pub async fn run(mut self) {
        loop {
            let length = match self.shared.behaviour.session {
                Some(mean) => mean.mul_f64(2.0 * rand::random::<f64>()),
                None => Duration::MAX,
            };
            // A session that fails is begun anew, as one that was cut is.
            let ended = tokio::time::timeout(length, self.session()).await;
            if let Ok(Err(error)) = ended {
                let status = error.downcast_ref::<tonic::Status>();
                self.endpoints.refused(status.and_then(link::leader));
            }
            tokio::time::sleep(PAUSE.mul_f64(0.5 + rand::random::<f64>())).await;
        }
    }

    async fn session(&mut self) -> Result<()> {
        let dial = self.shared.dials.acquire().await?;
        let channel = identity::connect(&self.identity, self.endpoints.current()).await?;
        drop(dial);
        let (up, outbox) = mpsc::channel::<AgentMessage>(4);
        let hello = Hello {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            availability_zone: self.identity.availability_zone.clone(),
            hostname: self.identity.host_id.clone(),
            capacity: Some(self.shared.behaviour.capacity),
            uefi: true,
        };
        up.send(message(Up::Hello(hello))).await?;
        self.observe(&up).await?;
        let client = link::client(channel);
        let mut dialled = client.clone();
        let session = dialled.session(ReceiverStream::new(outbox));
        let mut down = session.await?.into_inner();
        self.stored.clear();
        self.shared.counters.sessions.fetch_add(1, Relaxed);
        loop {
            let due = self.instances.next();
            tokio::select! {
                received = down.message() => {
                    let Some(received) = received? else { return Ok(()) };
                    self.hear(received, &up).await?;
                    self.store(&client);
                }
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    if let Some(began) = self.instances.change(Instant::now()) {
                        self.shared.counters.running.fetch_add(began, Relaxed);
                        self.observe(&up).await?;
                    }
                }
            }
        }
    }

    async fn hear(&mut self, received: ControlMessage, up: &mpsc::Sender<AgentMessage>) -> Result<()> {
        self.shared.counters.messages.fetch_add(1, Relaxed);
        self.shared
            .counters
            .bytes
            .fetch_add(received.encoded_len() as u64, Relaxed);
        match received.message {
            Some(Down::Intents(intents)) => {
                if rand::random::<f64>() < self.shared.behaviour.forgets {
                    return Ok(());
                }
                self.intents.send_replace(intents);
                self.act(up).await
            }
            Some(Down::Delta(delta)) => {
                if rand::random::<f64>() < self.shared.behaviour.forgets {
                    return Ok(());
                }
                // What does not match is acknowledged as what is kept, and all comes anew.
                self.intents
                    .send_if_modified(|intents| deltas::apply(intents, delta).is_ok());
                self.act(up).await
            }
            Some(Down::Endpoints(told)) => {
                self.endpoints.learn(&told.endpoints);
                Ok(())
            }
            Some(Down::ConsoleRequest(request)) => {
                let output = ConsoleOutput {
                    request_id: request.request_id,
                    output: b"Linux version 6.12.0 (simulated)\n".to_vec(),
                    written_at: 0,
                    error: String::new(),
                };
                Ok(up.send(message(Up::ConsoleOutput(output))).await?)
            }
            Some(Down::StorageRequest(request)) => {
                let report = StorageReport {
                    request_id: request.request_id,
                    error: "a simulated host has no disk".to_owned(),
                    ..StorageReport::default()
                };
                Ok(up.send(message(Up::StorageReport(report))).await?)
            }
            Some(Down::SshPublicKey(key)) => {
                let taken = KeyTaken {
                    request_id: key.request_id,
                    error: String::new(),
                };
                Ok(up.send(message(Up::KeyTaken(taken))).await?)
            }
            None => Ok(()),
        }
    }

    /// Acts upon the newest intents, and acknowledges them.
    async fn act(&mut self, up: &mpsc::Sender<AgentMessage>) -> Result<()> {
        if !self.shared.behaviour.acknowledges_after.is_zero() {
            tokio::time::sleep(self.shared.behaviour.acknowledges_after).await;
        }
        let now = Instant::now();
        self.volumes.learn(&self.intents.borrow());
        self.instances
            .want(&self.intents.borrow(), now, self.shared.behaviour.acts_after);
        if let Some(began) = self.instances.change(now) {
            self.shared.counters.running.fetch_add(began, Relaxed);
        }
        self.observe(up).await
    }

    /// Stores the snapshots that are wanted, each once in a session.
    fn store(&mut self, client: &ControlPlaneClient<Channel>) {
        let wanted = self.intents.borrow().snapshots.clone();
        for wanted in wanted {
            if self.stored.insert(wanted.snapshot_id.clone()) {
                let (mut client, parts) = (client.clone(), self.volumes.contents(&wanted));
                tokio::spawn(async move {
                    // It is done again in the next session, unless nobody wants it any more.
                    let _ = client.store_snapshot(tokio_stream::iter(parts)).await;
                });
            }
        }
    }

    async fn observe(&self, up: &mpsc::Sender<AgentMessage>) -> Result<()> {
        let observation = {
            let intents = self.intents.borrow();
            let volumes = intents.volumes.iter();
            let erased = volumes.filter(|volume| volume.desired() == volume_intent::Desired::Erased);
            Observation {
                repairs: Vec::new(),
                snapshots: intents.snapshots.iter().map(frozen).collect(),
                intents_sequence: intents.sequence,
                intents_epoch: intents.epoch.clone(),
                instances: self.instances.observe(),
                capacity: Some(self.shared.behaviour.capacity),
                erased_volumes: erased.map(|volume| volume.volume_id.clone()).collect(),
            }
        };
        Ok(up.send(message(Up::Observation(observation))).await?)
    }
}

fn frozen(intent: &SnapshotIntent) -> SnapshotObservation {
    SnapshotObservation {
        snapshot_id: intent.snapshot_id.clone(),
        state: snapshot_observation::State::Frozen.into(),
        message: String::new(),
    }
}

fn message(message: Up) -> AgentMessage {
    AgentMessage {
        message: Some(message),
    }
}
