//! Many simulated agents.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use hearth_api::agent::Intents;
use hearth_api::client::Client;
use hearth_api::join::JoinToken;
use hearth_api::v1;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::agent::Agent;
use super::{Behaviour, Counters, Shared};

/// Hosts that one join token admits.
const PER_TOKEN: usize = 1000;
/// Enrolments at the same time: below the control plane's places for guests of one address.
const AT_ONCE: usize = 64;

/// Simulated hosts that are joined and connected. Dropping it ends them.
pub struct Fleet {
    shared: Arc<Shared>,
    intents: BTreeMap<String, watch::Receiver<Intents>>,
    _agents: JoinSet<()>,
}

impl Fleet {
    /// Joins hosts, evenly over the zones, and waits until all are connected. Their identities go to `dir`.
    ///
    /// # Errors
    /// The control plane does not admit them, or not all are connected in time.
    pub async fn join(
        client: &Client,
        dir: &Path,
        hosts: usize,
        zones: &[String],
        behaviour: Behaviour,
    ) -> Result<Self> {
        let shared = Arc::new(Shared::new(behaviour));
        let mut tokens = Vec::new();
        for _ in 0..hosts.div_ceil(PER_TOKEN) {
            tokens.push(token(client).await?);
        }
        let mut places = Vec::with_capacity(hosts);
        for (token, zone) in tokens.iter().cycle().zip(zones.iter().cycle()).take(hosts) {
            places.push((token.clone(), zone.clone()));
        }
        let joining = places.into_iter().enumerate().map(|(number, (token, zone))| {
            let dir = dir.join(format!("host-{number}"));
            let shared = Arc::clone(&shared);
            async move { Agent::join(&dir, &token, &token.endpoint, &zone, shared).await }
        });
        let agents: Vec<Agent> = futures::stream::iter(joining)
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        let intents = agents
            .iter()
            .map(|agent| (agent.host_id().to_owned(), agent.intents()))
            .collect();
        let mut running = JoinSet::new();
        for agent in agents {
            running.spawn(agent.run());
        }
        let fleet = Self {
            shared,
            intents,
            _agents: running,
        };
        fleet.wait(Duration::from_secs(120), |_| true).await?;
        Ok(fleet)
    }

    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Waits until the intents of all hosts that have any instance are as `is_so` says, after at least one message each.
    ///
    /// # Errors
    /// Some are not in time.
    pub async fn wait(&self, limit: Duration, is_so: impl Fn(&Intents) -> bool) -> Result<()> {
        let deadline = tokio::time::Instant::now() + limit;
        for (host, intents) in &self.intents {
            let mut intents = intents.clone();
            let heard = intents.wait_for(|intents| {
                !intents.epoch.is_empty() && (intents.instances.is_empty() || is_so(intents))
            });
            let heard = tokio::time::timeout_at(deadline, heard).await;
            ensure!(
                matches!(heard, Ok(Ok(_))),
                "the intents of host {host} are not what is waited for"
            );
        }
        Ok(())
    }

    /// What a host keeps.
    ///
    /// # Errors
    /// It is none of this fleet.
    pub fn intents(&self, host_id: &str) -> Result<Intents> {
        let intents = self.intents.get(host_id).context("no such host")?;
        Ok(intents.borrow().clone())
    }
}

async fn token(client: &Client) -> Result<JoinToken> {
    let request = v1::CreateJoinTokenRequest {
        expires_in_seconds: 3600,
        uses: i32::try_from(PER_TOKEN)?,
        ..v1::CreateJoinTokenRequest::default()
    };
    let mut hosts = client.hosts.clone();
    let answer = hosts.create_join_token(request).await?.into_inner();
    Ok(answer.token.parse()?)
}
