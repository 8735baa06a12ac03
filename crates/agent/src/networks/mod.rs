//! The host's VPCs as the intents want them, made so one change at a time per VPC.

mod translate;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use hearth_api::agent::{Intents, SshPublicKey};
use hearth_network::spec::VpcSpec;
use hearth_network::{
    ActiveKey, InstanceMetadata, InterfaceCounters, MetadataSource, Network, NetworkConfig, NetworkError,
    RoleCredentials,
};
use tokio::sync::watch;

use crate::board::Board;
use crate::keys::Keys;
use crate::roles::Roles;
use translate::addresses;
pub use translate::{Untranslatable, metadata, vpc_spec};

/// How often what there is on the host is compared with what is wanted. What was changed is mended within twice that.
const CHECK_INTERVAL: Duration = Duration::from_secs(12);
/// Bytes of IP packet on every link.
pub const MTU: u16 = 1500;

#[derive(Debug, thiserror::Error)]
pub enum NetworksError {
    #[error("no intent describes VPC {0}")]
    NoIntent(String),
    #[error(transparent)]
    Untranslatable(#[from] Untranslatable),
    #[error("setting up the network of VPC {vpc_id}")]
    Apply { vpc_id: String, source: NetworkError },
    #[error("opening the TAP of {eni_id}")]
    Tap { eni_id: String, source: NetworkError },
    #[error("opening a stand-in for a TAP")]
    Simulated(#[source] std::io::Error),
}

/// The host's network, or none for tests with stand-in monitors.
#[derive(Clone)]
pub enum Host {
    Real(Network),
    Simulated,
}

/// Answers IMDS from the intents, with credentials that [`crate::roles`] fetches, and with keys of [`crate::keys`].
#[derive(Default)]
pub struct Metadata {
    by_address: RwLock<HashMap<(String, Ipv4Addr), Arc<InstanceMetadata>>>,
    pub roles: Roles,
    keys: Keys,
}

impl Metadata {
    /// Tells a key of an instance for a while.
    ///
    /// # Errors
    /// The host has no such instance; in a sentence.
    pub fn give_key(&self, key: SshPublicKey) -> Result<(), String> {
        let map = self.by_address.read().unwrap_or_else(PoisonError::into_inner);
        if !map
            .values()
            .any(|instance| instance.instance_id == key.instance_id)
        {
            return Err(format!(
                "the host does not serve the metadata of {}",
                key.instance_id
            ));
        }
        let life = Duration::from_secs(key.seconds.into());
        let active = ActiveKey {
            os_user: key.os_user,
            openssh: key.public_key,
        };
        self.keys.give(&key.instance_id, active, life);
        Ok(())
    }
}

impl MetadataSource for Metadata {
    fn by_address(&self, vpc_id: &str, ip: Ipv4Addr) -> Option<Arc<InstanceMetadata>> {
        let map = self.by_address.read().unwrap_or_else(PoisonError::into_inner);
        map.get(&(vpc_id.to_owned(), ip)).cloned()
    }

    fn credentials(&self, instance_id: &str) -> Option<Arc<RoleCredentials>> {
        self.roles.credentials(instance_id)
    }

    fn active_keys(&self, instance_id: &str) -> Vec<ActiveKey> {
        self.keys.of(instance_id)
    }
}

/// What was last made of a VPC; its lock makes one change wait for the other.
type Applied = Arc<tokio::sync::Mutex<Option<VpcSpec>>>;

pub struct Networks {
    host: Host,
    board: Board,
    metadata: Arc<Metadata>,
    wanted: RwLock<BTreeMap<String, VpcSpec>>,
    applied: Mutex<HashMap<String, Applied>>,
    changed: tokio::sync::Notify,
    /// Interfaces that had no TAP when it was last looked, but for those that were given one since.
    without_tap: watch::Sender<BTreeSet<String>>,
}

/// The network crate's configuration for a data directory.
///
/// # Errors
/// The key that signs IMDSv2 tokens can neither be read nor made.
pub fn config(dir: &crate::paths::DataDir, host_namespace: Option<&str>) -> std::io::Result<NetworkConfig> {
    let mut config = NetworkConfig::new(dir.root().join("network"), imds_key(dir)?);
    config.mtu = MTU;
    config.root_netns = host_namespace.map(|name| PathBuf::from("/run/netns").join(name));
    Ok(config)
}

/// Kept, so that the guests' tokens outlive the agent.
fn imds_key(dir: &crate::paths::DataDir) -> std::io::Result<[u8; 32]> {
    let path = dir.root().join("imds.key");
    if let Ok(bytes) = std::fs::read(&path)
        && let Ok(key) = bytes.try_into()
    {
        return Ok(key);
    }
    let key: [u8; 32] = rand::random();
    crate::identity::write_private(&path, &key)?;
    Ok(key)
}

impl Networks {
    /// Repairs are told on `board`.
    pub fn new(host: Host, metadata: Arc<Metadata>, board: Board) -> Networks {
        Networks {
            host,
            board,
            metadata,
            wanted: RwLock::default(),
            applied: Mutex::default(),
            changed: tokio::sync::Notify::new(),
            without_tap: watch::Sender::default(),
        }
    }

    /// What each interface's servers admitted and refused.
    pub async fn counters(&self) -> Vec<InterfaceCounters> {
        match &self.host {
            Host::Real(network) => network.counters().await,
            Host::Simulated => Vec::new(),
        }
    }

    /// Notes what is wanted; [`Networks::keep`] and [`Networks::converge`] make it so.
    pub fn want(&self, intents: &Intents) {
        let mut wanted = BTreeMap::new();
        for vpc in &intents.vpcs {
            match vpc_spec(vpc, &intents.instances) {
                Ok(spec) => {
                    wanted.insert(vpc.vpc_id.clone(), spec);
                }
                Err(error) => tracing::error!(vpc = vpc.vpc_id, %error, "leaving a VPC as it is"),
            }
        }
        let mut by_address = HashMap::new();
        let mut roles = BTreeMap::new();
        for instance in &intents.instances {
            match metadata(instance, &intents.vpcs) {
                Ok(told) => {
                    let told = Arc::new(told);
                    let profile = told.instance_profile.as_ref();
                    if let Some(role) = profile.and_then(|profile| profile.role_id.as_ref()) {
                        roles.insert(told.instance_id.clone(), role.clone());
                    }
                    by_address.extend(addresses(instance).map(|at| (at, Arc::clone(&told))));
                }
                Err(error) => {
                    tracing::error!(instance = instance.instance_id, %error, "IMDS will not know it");
                }
            }
        }
        *self
            .metadata
            .by_address
            .write()
            .unwrap_or_else(PoisonError::into_inner) = by_address;
        self.metadata.roles.want(roles);
        *self.wanted.write().unwrap_or_else(PoisonError::into_inner) = wanted;
        self.changed.notify_one();
    }

    /// Makes the VPC as it is wanted at this moment; returns at once when it already is.
    ///
    /// # Errors
    /// Nothing is wanted of it, or the host refuses.
    pub async fn converge(&self, vpc_id: &str) -> Result<(), NetworksError> {
        let slot = {
            let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(applied.entry(vpc_id.to_owned()).or_default())
        };
        let mut applied = slot.lock().await;
        // Read under the lock: whoever waited for it applies the newest wish, or finds it applied.
        let wanted = {
            let wanted = self.wanted.read().unwrap_or_else(PoisonError::into_inner);
            wanted.get(vpc_id).cloned()
        };
        let Some(wanted) = wanted else {
            return Err(NetworksError::NoIntent(vpc_id.to_owned()));
        };
        if applied.as_ref() == Some(&wanted) {
            return Ok(());
        }
        // Should this be dropped half-way, nothing is known of the VPC.
        *applied = None;
        if let Host::Real(network) = &self.host {
            network
                .apply_vpc(&wanted)
                .await
                .map_err(|source| NetworksError::Apply {
                    vpc_id: vpc_id.to_owned(),
                    source,
                })?;
        }
        *applied = Some(wanted);
        Ok(())
    }

    /// Interfaces that had no TAP at the last look. That of an instance that runs was deleted. Looks come every
    /// [`CHECK_INTERVAL`].
    pub fn without_tap(&self) -> watch::Receiver<BTreeSet<String>> {
        self.without_tap.subscribe()
    }

    /// Until the next look, nothing is known to be wrong with the interface's TAP.
    pub fn leave_to_next_look(&self, eni_id: &str) {
        // No news for anybody else.
        self.without_tap.send_if_modified(|without| {
            without.remove(eni_id);
            false
        });
    }

    /// The TAP of an interface, with so many queues, in its VPC as it is wanted now.
    ///
    /// # Errors
    /// The VPC cannot be made, or the TAP not be opened.
    pub async fn open_tap(
        &self,
        vpc_id: &str,
        eni_id: &str,
        queues: usize,
    ) -> Result<Vec<OwnedFd>, NetworksError> {
        self.converge(vpc_id).await?;
        match &self.host {
            Host::Simulated => std::fs::File::options()
                .read(true)
                .write(true)
                .open("/dev/null")
                .map(|null| vec![null.into()])
                .map_err(NetworksError::Simulated),
            Host::Real(network) => {
                let opened = network.open_tap(vpc_id, eni_id, queues).await;
                self.leave_to_next_look(eni_id);
                opened.map_err(|source| NetworksError::Tap {
                    eni_id: eni_id.to_owned(),
                    source,
                })
            }
        }
    }

    /// Makes every change of the wishes true, and tries again what failed. Never returns.
    pub async fn keep(&self) {
        let delays = || {
            ExponentialBuilder::default()
                .with_jitter()
                .with_min_delay(Duration::from_millis(500))
                .with_max_delay(Duration::from_secs(30))
                .without_max_times()
                .build()
        };
        let mut delay = delays();
        // Before the first wish is heard, nothing is known to be unwanted.
        self.changed.notified().await;
        let mut check_at = tokio::time::Instant::now() + CHECK_INTERVAL;
        loop {
            let again = if self.converge_all().await {
                delay = delays();
                None
            } else {
                delay.next()
            };
            let again_at = again.map(|delay| tokio::time::Instant::now() + delay);
            let look_at = again_at.map_or(check_at, |at| at.min(check_at));
            // A new wish is tried at once.
            let _ = tokio::time::timeout_at(look_at, self.changed.notified()).await;
            // Also when wishes change all the time.
            if tokio::time::Instant::now() >= check_at {
                self.check_all().await;
                check_at = tokio::time::Instant::now() + CHECK_INTERVAL;
            }
        }
    }

    /// Finds VPCs whose namespace or rules somebody else has changed, so that they are made anew.
    async fn check_all(&self) {
        let Host::Real(network) = &self.host else {
            return;
        };
        match network.check_host().await {
            Ok(None) => {}
            Ok(Some(difference)) => {
                tracing::warn!(
                    difference,
                    "the host's rules were changed by somebody else; made them anew"
                );
                self.board.post_repair(&format!("the host's rules: {difference}"));
            }
            Err(error) => tracing::warn!(error = %crate::chain(&error), "checking the host's rules"),
        }
        let slots: Vec<(String, Applied)> = {
            let applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
            applied
                .iter()
                .map(|(id, slot)| (id.clone(), Arc::clone(slot)))
                .collect()
        };
        let mut without_tap = BTreeSet::new();
        for (vpc_id, slot) in slots {
            let mut applied = slot.lock().await;
            if applied.is_none() {
                continue;
            }
            match network.without_tap(&vpc_id).await {
                Ok(without) => without_tap.extend(without),
                Err(error) => {
                    tracing::warn!(vpc = vpc_id, error = %crate::chain(&error), "looking for TAPs");
                }
            }
            match network.check_vpc(&vpc_id).await {
                Ok(None) => {}
                Ok(Some(difference)) => {
                    tracing::warn!(
                        vpc = vpc_id,
                        difference,
                        "a VPC was changed by somebody else; making it anew"
                    );
                    self.board.post_repair(&format!("{vpc_id}: {difference}"));
                    *applied = None;
                }
                Err(error) => {
                    tracing::warn!(vpc = vpc_id, error = %crate::chain(&error), "checking a VPC");
                }
            }
        }
        self.without_tap.send_if_modified(|before| {
            let is_news = *before != without_tap;
            *before = without_tap;
            is_news
        });
    }

    /// Whether all is as wanted.
    async fn converge_all(&self) -> bool {
        let wanted: Vec<String> = {
            let wanted = self.wanted.read().unwrap_or_else(PoisonError::into_inner);
            wanted.keys().cloned().collect()
        };
        let mut all = true;
        for vpc_id in &wanted {
            if let Err(error) = self.converge(vpc_id).await {
                tracing::warn!(vpc = vpc_id, error = %crate::chain(&error), "a VPC is not as it should be");
                all = false;
            }
        }
        all & self.remove_unwanted(&wanted).await
    }

    /// VPCs of this agent's making that no intent names any more go.
    async fn remove_unwanted(&self, wanted: &[String]) -> bool {
        let Host::Real(network) = &self.host else {
            return true;
        };
        let made = match network.vpcs().await {
            Ok(made) => made,
            Err(error) => {
                tracing::warn!(error = %crate::chain(&error), "listing the host's VPCs");
                return false;
            }
        };
        let mut all = true;
        for vpc_id in made.iter().filter(|made| !wanted.contains(made)) {
            let slot = {
                let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
                Arc::clone(applied.entry(vpc_id.clone()).or_default())
            };
            let mut applied = slot.lock().await;
            let wanted_again = self
                .wanted
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .contains_key(vpc_id);
            if wanted_again {
                continue;
            }
            *applied = None;
            if let Err(error) = network.remove_vpc(vpc_id).await {
                tracing::warn!(vpc = vpc_id, error = %crate::chain(&error), "removing a VPC");
                all = false;
            }
        }
        all
    }
}
