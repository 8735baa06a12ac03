//! The host's networks as a whole.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::sync::Mutex;

use crate::conntrack::{self, any_of};
use crate::host::Host;
use crate::names::is_id;
use crate::netns::Netns;
use crate::plan::Plan;
use crate::rules::{Loaded, obstacles, remove_root_rules};
use crate::share::InterfaceCounters;
use crate::spec::VpcSpec;
use crate::vpc::{Vpc, clear_namespace};
use crate::{MetadataSource, NetworkConfig, NetworkError};

/// The networks of this host; cheap to clone. All calls are idempotent and may be retried after any error.
///
/// Calls for one VPC wait for each other; those for different VPCs do not.
#[derive(Clone)]
pub struct Network {
    host: Arc<Host>,
    vpcs: Arc<Mutex<HashMap<String, Slot>>>,
}

/// `None` until applied, and after removal.
type Slot = Arc<Mutex<Option<Vpc>>>;

impl Network {
    /// Prepares the host: IPv4 forwarding on, for guests only unless it was on before; directories made. Warns of other
    /// software whose rules drop what guests send. Needs `CAP_NET_ADMIN` and
    /// `CAP_SYS_ADMIN`, and `nft`.
    pub async fn new(config: NetworkConfig, metadata: Arc<dyn MetadataSource>) -> Result<Self, NetworkError> {
        let host = Host::new(config, metadata).await?;
        Ok(Self {
            host: Arc::new(host),
            vpcs: Arc::default(),
        })
    }

    /// Makes the VPC's namespace, uplink, rules and servers as `spec` says, adopts what an earlier process left, and
    /// removes the interfaces and rules that `spec` no longer has. Level-triggered: call it with the whole wish.
    pub async fn apply_vpc(&self, spec: &VpcSpec) -> Result<(), NetworkError> {
        let plan = Plan::new(spec)?;
        let path = self.host.netns_path(&plan.vpc_id);
        let slot = self.slot(&plan.vpc_id).await;
        let mut vpc = slot.lock().await;
        self.host.mark(&plan.vpc_id)?;
        let vpc = match &mut *vpc {
            Some(vpc) => {
                if !vpc.is_at(&path) {
                    // The namespace lives on: TAPs of guests are in it.
                    vpc.rename(&path).await?;
                }
                vpc
            }
            none => none.insert(Vpc::open(&path, &plan, &self.host).await?),
        };
        vpc.apply(plan, &self.host).await
    }

    /// Compares the VPC's rules, links, addresses, routes, neighbours, switches and servers with what there is, in both
    /// namespaces. A difference is returned (the first, in words): the next [`Network::apply_vpc`] mends all. `None` when
    /// all is as applied, also for a VPC that was not applied. Takes about as long as loading the rules: call it a few
    /// times a minute, not for each change.
    pub async fn check_vpc(&self, vpc_id: &str) -> Result<Option<String>, NetworkError> {
        let slot = self.slot(vpc_id).await;
        let mut vpc = slot.lock().await;
        match &mut *vpc {
            Some(vpc) if !vpc.is_at(&self.host.netns_path(vpc_id)) => {
                Ok(Some("its namespace has lost its name".to_owned()))
            }
            Some(_) if !self.host.is_marked(vpc_id) => Ok(Some("its mark is gone".to_owned())),
            Some(vpc) => vpc.check(&self.host).await,
            None => Ok(None),
        }
    }

    /// The interfaces of an applied VPC that have no TAP: nobody has opened one, who had it open let it go, or somebody
    /// deleted it.
    pub async fn without_tap(&self, vpc_id: &str) -> Result<Vec<String>, NetworkError> {
        let slot = self.slot(vpc_id).await;
        let vpc = slot.lock().await;
        match &*vpc {
            Some(vpc) => vpc.without_tap().await,
            None => Ok(Vec::new()),
        }
    }

    /// Makes the host's own part as it should be, should somebody have changed it; says what was different. Call it as
    /// often as [`Network::check_vpc`].
    pub async fn check_host(&self) -> Result<Option<String>, NetworkError> {
        self.host.forwarding.lock().await.check(&self.host.root).await
    }

    /// Rule sets of others whose rules drop what Hearth forwards: a sentence for each, that says what to do.
    pub async fn obstacles(&self) -> Result<Vec<String>, NetworkError> {
        obstacles(&self.host.root).await
    }

    /// Undoes what [`Network::new`] did to the host, when no VPC is left.
    pub async fn release_host(&self) -> Result<(), NetworkError> {
        let mut forwarding = self.host.forwarding.lock().await;
        forwarding.switch_off(&self.host.root, &self.host.links).await
    }

    /// Creates the interface's TAP with so many queues inside the VPC's namespace and configures it. The TAP lives as
    /// long as a descriptor of it; the interface must be in the applied specification. The descriptors, one for each
    /// queue, are non-blocking and close-on-exec, and their frames begin with a 12-byte `virtio_net_hdr_v1`; offloads are off until its holder sets
    /// them (`TUNSETOFFLOAD`).
    pub async fn open_tap(
        &self,
        vpc_id: &str,
        eni_id: &str,
        queues: usize,
    ) -> Result<Vec<OwnedFd>, NetworkError> {
        let slot = self.slot(vpc_id).await;
        let mut vpc = slot.lock().await;
        match &mut *vpc {
            Some(vpc) => vpc.open_tap(eni_id, queues, &self.host).await,
            None => Err(NetworkError::UnknownVpc(vpc_id.to_owned())),
        }
    }

    /// Removes the namespace with all that is in it (also TAPs that monitors still hold), and its rules and routes in
    /// the root namespace. An absent VPC is no error.
    pub async fn remove_vpc(&self, vpc_id: &str) -> Result<(), NetworkError> {
        if !is_id("vpc", vpc_id) {
            return Err(NetworkError::UnknownVpc(vpc_id.to_owned()));
        }
        let slot = self.slot(vpc_id).await;
        let mut vpc = slot.lock().await;
        // Its servers end here.
        *vpc = None;
        let path = self.host.netns_path(vpc_id);
        if let Some(netns) = Netns::open(&path)? {
            let rules = Loaded::nothing_known(netns.clone(), vpc_id.to_owned());
            let (public, _) = rules.holders().await?;
            clear_namespace(&netns).await?;
            // Inside, they end with the namespace.
            conntrack::end(&self.host.root, any_of(public.public_addresses())).await?;
        }
        Netns::remove(&path)?;
        remove_root_rules(&self.host.root, vpc_id).await?;
        self.host.shares.retain(vpc_id, |_| false);
        self.host.unmark(vpc_id)
    }

    /// What the DNS, IMDS and DHCP servers admitted and refused, and the connections that were refused, of each interface.
    /// Reads the rules of every VPC. A VPC whose rules cannot be read is logged, and counts no refused connection.
    pub async fn counters(&self) -> Vec<InterfaceCounters> {
        let mut counters = self.host.shares.counters();
        let vpcs: BTreeSet<String> = counters.iter().map(|counters| counters.vpc_id.clone()).collect();
        for vpc_id in &vpcs {
            let slot = self.slot(vpc_id).await;
            let vpc = slot.lock().await;
            let Some(vpc) = &*vpc else { continue };
            match vpc.refused().await {
                Ok(refused) => {
                    for counters in counters.iter_mut().filter(|counters| counters.vpc_id == *vpc_id) {
                        counters.connections =
                            refused.get(&counters.interface_id).copied().unwrap_or_default();
                    }
                }
                Err(error) => tracing::warn!(vpc = vpc_id, %error, "reading refused connections"),
            }
        }
        counters
    }

    /// The VPCs that this agent (by its `state_dir`) made and has not removed, also those of earlier processes.
    pub async fn vpcs(&self) -> Result<Vec<String>, NetworkError> {
        self.host.marked()
    }

    async fn slot(&self, vpc_id: &str) -> Slot {
        self.vpcs
            .lock()
            .await
            .entry(vpc_id.to_owned())
            .or_default()
            .clone()
    }
}
