//! One VPC on this host: its namespace, what was applied there, and its servers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, RwLock};

use crate::conntrack::{self, Connection, any_of};
use crate::holders::Holders;
use crate::host::Host;
use crate::links::{INNER_MAC, Links, OUTER_MAC, ROUTER_MAC, Via};
use crate::names::{UPLINK, tap_name, uplink_name};
use crate::netns::{Netns, sysctl, system_error};
use crate::plan::{CurrentPlan, Plan, first_host};
use crate::rules::{Loaded, Refused, Rules};
use crate::servers::{Servers, Sockets};
use crate::share::RefusedConnections;
use crate::spec::EniSpec;
use crate::{NetworkError, drift, tracking};

/// Whether conntrack takes a packet out of the middle of a TCP connection that it does not know for a new connection. It
/// must not: a connection that was ended here would go on with the next packet of the end that is admitted.
const LOOSE_TRACKING: &str = "net/netfilter/nf_conntrack_tcp_loose";

/// A VPC whose namespace is there. Dropping it ends its servers and nothing else.
pub(crate) struct Vpc {
    netns: Netns,
    links: Links,
    plan: CurrentPlan,
    rules: Loaded,
    root_rules: Loaded,
    addresses: Addresses,
    servers: Servers,
}

/// Whose the addresses are, as far as this process knows.
#[derive(Default)]
struct Addresses {
    /// By what was last made; `None` before this process has made anything.
    holders: Option<Holders>,
    /// Addresses that have changed hands, and whose old connections may not all have ended.
    ending: BTreeSet<Ipv4Addr>,
    /// What the rules were made from that connections were last held against.
    plan: Option<Plan>,
}

impl Vpc {
    /// Enters the namespace at `path`, or makes it.
    pub(crate) async fn open(path: &Path, plan: &Plan, host: &Host) -> Result<Self, NetworkError> {
        let netns = match Netns::open(path)? {
            Some(netns) => netns,
            None => Netns::create(path.to_owned()).await?,
        };
        let links = Links::of(&netns).await?;
        let current = Arc::new(RwLock::new(Arc::new(plan.clone())));
        Ok(Self {
            links,
            servers: Servers::new(current.clone(), host),
            plan: current,
            rules: Loaded::nothing_known(netns.clone(), plan.vpc_id.clone()),
            root_rules: Loaded::nothing_known(
                host.root.clone(),
                format!("{} in the root namespace", plan.vpc_id),
            ),
            addresses: Addresses::default(),
            netns,
        })
    }

    /// Whether its namespace is still the one that `path` names.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        matches!(Netns::open(path), Ok(Some(netns)) if netns.is_same(&self.netns))
    }

    /// Makes everything as the plan says, also what was right when it was made and has been changed since.
    pub(crate) async fn apply(&mut self, plan: Plan, host: &Host) -> Result<(), NetworkError> {
        self.netns.run(prepare_namespace).await?;
        let links = self.links.list().await?;
        let index_of = |name: &str| {
            links
                .iter()
                .find(|(_, here)| here == name)
                .map(|(index, _)| *index)
        };
        if let Some(loopback) = index_of("lo") {
            self.links.set_up(loopback).await?;
            self.links
                .set_addresses(loopback, &plan.local_addresses())
                .await?;
        }
        let uplink = match index_of(UPLINK) {
            Some(uplink) => uplink,
            None => self.add_uplink(&plan, host).await?,
        };
        self.links.set_up_as(uplink, INNER_MAC, host.config.mtu).await?;
        self.netns.run(|| prepare_link(UPLINK)).await?;
        self.note_new_holders(&plan).await?;
        let (inside, outside) = tokio::join!(
            self.rules
                .make(Rules::of_vpc(&plan, host.connections, &self.addresses.ending)),
            apply_outside(&plan, host, &mut self.root_rules)
        );
        inside?;
        outside?;
        self.netns.run(|| sysctl(LOOSE_TRACKING, "0")).await?;
        self.end_connections(&plan, host).await?;
        self.route_inside(uplink, &plan).await?;
        *self.plan.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = Arc::new(plan.clone());
        self.match_taps(&plan, host, &links).await
    }

    /// Finds the addresses that `plan` gives to others than had them.
    async fn note_new_holders(&mut self, plan: &Plan) -> Result<(), NetworkError> {
        let addresses = &mut self.addresses;
        let wanted = Holders::of(plan);
        let holders = match addresses.holders.take() {
            Some(holders) => holders,
            // The rules that an earlier process has loaded know it. Without rules, everybody is new.
            None => {
                let (holders, ending) = self.rules.holders().await?;
                addresses.ending.extend(ending);
                holders
            }
        };
        addresses.ending.extend(holders.changed(&wanted));
        addresses.holders = Some(wanted);
        Ok(())
    }

    /// Ends the connections of addresses that have changed hands, in both namespaces, and those that the groups' change
    /// interrupts. The rules are those of `plan` already.
    async fn end_connections(&mut self, plan: &Plan, host: &Host) -> Result<(), NetworkError> {
        let addresses = &mut self.addresses;
        if let Some(before) = &addresses.plan
            && tracking::may_interrupt(before, plan)
        {
            let (before, after) = (before.clone(), plan.clone());
            let interrupts = move |connection: &Connection| tracking::interrupts(&before, &after, connection);
            let ended = conntrack::end(&self.netns, interrupts).await?;
            tracing::debug!(
                vpc = plan.vpc_id,
                ended,
                "a change of security groups ended connections"
            );
        }
        addresses.plan = Some(plan.clone());
        if addresses.ending.is_empty() {
            return Ok(());
        }
        // Outside, a private address may be that of another network's machine.
        let is_public = |address: &&Ipv4Addr| plan.public_pool.contains(*address);
        let public = addresses.ending.iter().filter(is_public).copied().collect();
        let (inside, outside) = tokio::try_join!(
            conntrack::end(&self.netns, any_of(addresses.ending.clone())),
            conntrack::end(&host.root, any_of(public))
        )?;
        tracing::debug!(
            vpc = plan.vpc_id,
            inside,
            outside,
            "addresses changed hands; their connections have ended"
        );
        addresses.ending.clear();
        self.rules
            .make(Rules::of_vpc(plan, host.connections, &addresses.ending))
            .await
    }

    /// See [`crate::Network::check_vpc`].
    pub(crate) async fn check(&mut self, host: &Host) -> Result<Option<String>, NetworkError> {
        let (inside, outside) = (self.rules.check().await?, self.root_rules.check().await?);
        let plan = self.current_plan();
        // The host's routes are part of the rules.
        let wanted = Rules::of_root(&plan, &host.reach().await?);
        let routes = (!self.root_rules.is(&wanted)).then(|| "the host has other routes".to_owned());
        if let Some(difference) = inside.or(outside).or(routes) {
            return Ok(Some(difference));
        }
        let mtu = host.config.mtu;
        if let Some(difference) = drift::inside(&self.netns, &self.links, &plan, mtu).await? {
            return Ok(Some(difference));
        }
        if let Some(difference) = drift::outside(&host.links, &plan, mtu).await? {
            return Ok(Some(difference));
        }
        self.unserved(&plan, host).await
    }

    /// The interfaces that have no TAP.
    pub(crate) async fn without_tap(&self) -> Result<Vec<String>, NetworkError> {
        let links = self.links.list().await?;
        let has_tap = |eni: &&EniSpec| {
            let tap = tap_name(&eni.eni_id);
            links.iter().any(|(_, name)| *name == tap)
        };
        let plan = self.current_plan();
        let without = plan.enis.iter().filter(|eni| !has_tap(eni));
        Ok(without.map(|eni| eni.eni_id.clone()).collect())
    }

    /// An interface with a TAP whose servers have ended.
    async fn unserved(&self, plan: &Plan, host: &Host) -> Result<Option<String>, NetworkError> {
        let links = self.links.list().await?;
        let has_tap = |eni: &&EniSpec| {
            let tap = tap_name(&eni.eni_id);
            links.iter().any(|(_, name)| *name == tap)
        };
        let unserved = plan
            .enis
            .iter()
            .filter(has_tap)
            .find(|eni| !self.servers.serves(eni, plan, host));
        Ok(unserved.map(|eni| format!("the DHCP, DNS and IMDS servers of {} have ended", eni.eni_id)))
    }

    /// Names the namespace anew, if somebody has taken its name away or given it to another.
    pub(crate) async fn rename(&self, path: &Path) -> Result<(), NetworkError> {
        self.netns.bind(path.to_owned()).await
    }

    /// Refused connections by interface id.
    pub(crate) async fn refused(&self) -> Result<BTreeMap<String, RefusedConnections>, NetworkError> {
        let plan = self.current_plan();
        let mut refused: BTreeMap<String, RefusedConnections> = BTreeMap::new();
        let take = |Refused { key, packets }: Refused<'_>| {
            for eni in &plan.enis {
                let of_eni = refused.entry(eni.eni_id.clone()).or_default();
                if key == tap_name(&eni.eni_id) {
                    of_eni.begun = packets;
                } else if eni.public_ip.is_some_and(|public| key == public.to_string()) {
                    of_eni.from_outside = packets;
                }
            }
        };
        self.rules.refused(take).await?;
        Ok(refused)
    }

    fn current_plan(&self) -> Arc<Plan> {
        self.plan
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .clone()
    }

    async fn add_uplink(&self, plan: &Plan, host: &Host) -> Result<u32, NetworkError> {
        let outer = uplink_name(&plan.vpc_id);
        // One that has lost its namespace: a monitor that outlived it can keep it alive.
        if let Some(stale) = host.links.find(&outer).await? {
            host.links.delete(stale).await?;
        }
        self.links.add_uplink(&outer, &host.root, host.config.mtu).await?;
        missing_link(self.links.find(UPLINK).await?, UPLINK)
    }

    async fn route_inside(&self, uplink: u32, plan: &Plan) -> Result<(), NetworkError> {
        let gateway = plan.gateway();
        self.links.set_neighbour(uplink, gateway, OUTER_MAC).await?;
        let out = Via {
            index: uplink,
            next_hop: Some(gateway),
            source: None,
        };
        self.links.set_route(Ipv4Addr::UNSPECIFIED, 0, &out).await?;
        self.links
            .set_unreachable(plan.cidr.network(), plan.cidr.prefix_len())
            .await
    }

    /// Adopts the TAPs that monitors hold already, and removes those of interfaces that are no longer wanted.
    async fn match_taps(
        &mut self,
        plan: &Plan,
        host: &Host,
        links: &[(u32, String)],
    ) -> Result<(), NetworkError> {
        let wanted: BTreeMap<String, &EniSpec> =
            plan.enis.iter().map(|eni| (tap_name(&eni.eni_id), eni)).collect();
        for (index, name) in links.iter().filter(|(_, name)| name.starts_with("tap")) {
            match wanted.get(name) {
                Some(eni) => self.adopt_tap(*index, eni, plan, host).await?,
                None => self.links.delete(*index).await?,
            }
        }
        self.servers.retain(plan, host);
        Ok(())
    }

    async fn adopt_tap(
        &mut self,
        index: u32,
        eni: &EniSpec,
        plan: &Plan,
        host: &Host,
    ) -> Result<(), NetworkError> {
        if !self.servers.serves(eni, plan, host) {
            self.servers.stop(&eni.eni_id).await;
            let (tap, dns) = (tap_name(&eni.eni_id), plan.dns());
            let sockets = self.netns.run(move || Sockets::open(&tap, &dns)).await?;
            self.servers.start(eni, plan, host, sockets);
        }
        self.configure_tap(index, eni, host).await
    }

    pub(crate) async fn open_tap(
        &mut self,
        eni_id: &str,
        queues: usize,
        host: &Host,
    ) -> Result<Vec<OwnedFd>, NetworkError> {
        let plan = self.current_plan();
        if !self.rules.is_known() {
            // Not applied, or not wholly: no TAP without rules.
            return Err(NetworkError::UnknownVpc(plan.vpc_id.clone()));
        }
        let eni = plan.eni(eni_id).ok_or_else(|| NetworkError::UnknownEni {
            vpc_id: plan.vpc_id.clone(),
            eni_id: eni_id.to_owned(),
        })?;
        let (tap, id, dns) = (tap_name(eni_id), eni_id.to_owned(), plan.dns());
        let opened = self.netns.run(move || {
            let descriptors = crate::tap::create(&tap, queues).map_err(|e| match e.raw_os_error() {
                Some(libc::EBUSY) => NetworkError::TapBusy {
                    tap: tap.clone(),
                    eni_id: id,
                },
                _ => system_error(format!("making {tap}"), e),
            })?;
            // Answers to ARP at once; there is no default for this outside the first namespace.
            sysctl(&format!("net/ipv4/neigh/{tap}/proxy_delay"), "0")?;
            let index = nix::net::if_::if_nametoindex(tap.as_str())
                .map_err(|e| system_error(format!("looking for {tap}"), e.into()))?;
            Ok((descriptors, index, Sockets::open(&tap, &dns)?))
        });
        let (descriptors, index, sockets) = opened.await?;
        self.servers.stop(eni_id).await;
        // The servers first: a guest may ask as soon as the link is up.
        self.servers.start(eni, &plan, host, sockets);
        self.configure_tap(index, eni, host).await?;
        Ok(descriptors)
    }

    async fn configure_tap(&self, index: u32, eni: &EniSpec, host: &Host) -> Result<(), NetworkError> {
        let tap = tap_name(&eni.eni_id);
        self.netns.run(move || prepare_link(&tap)).await?;
        self.links.set_up_as(index, ROUTER_MAC, host.config.mtu).await?;
        let via = Via {
            index,
            next_hop: None,
            source: Some(first_host(&eni.subnet)),
        };
        self.links.set_route(eni.private_ip, 32, &via).await?;
        self.links.set_neighbour(index, eni.private_ip, eni.mac).await
    }
}

/// Deletes every link of a namespace, so that both ends of its uplink are gone on return, whoever still holds it.
pub(crate) async fn clear_namespace(netns: &Netns) -> Result<(), NetworkError> {
    let links = Links::of(netns).await?;
    for (index, name) in links.list().await? {
        if name != "lo" {
            links.delete(index).await?;
        }
    }
    Ok(())
}

/// Runs inside.
fn prepare_namespace() -> Result<(), NetworkError> {
    // A new namespace takes some of these from the host.
    for (key, value) in drift::NAMESPACE {
        sysctl(key, value)?;
    }
    // A host without IPv6 has nothing to switch off.
    if Path::new("/proc/sys/net/ipv6").exists() {
        sysctl("net/ipv6/conf/all/disable_ipv6", "1")?;
        sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
    }
    Ok(())
}

/// Runs inside.
fn prepare_link(name: &str) -> Result<(), NetworkError> {
    drift::of_link(name)
        .iter()
        .try_for_each(|(key, value)| sysctl(key, value))
}

/// The root namespace's half: addresses, routes to public addresses, masquerading.
async fn apply_outside(plan: &Plan, host: &Host, rules: &mut Loaded) -> Result<(), NetworkError> {
    let name = uplink_name(&plan.vpc_id);
    let outer = missing_link(host.links.find(&name).await?, &name)?;
    host.root.run(move || prepare_outer(&name)).await?;
    rules.make(Rules::of_root(plan, &host.reach().await?)).await?;
    host.links.set_up_as(outer, OUTER_MAC, host.config.mtu).await?;
    host.links
        .set_addresses(outer, &BTreeSet::from([plan.gateway()]))
        .await?;
    let publics: BTreeSet<Ipv4Addr> = plan.enis.iter().filter_map(|eni| eni.public_ip).collect();
    let via = Via {
        source: Some(plan.gateway()),
        ..host.links.set_inner_next_hop(outer).await?
    };
    for public in &publics {
        host.links.set_route(*public, 32, &via).await?;
    }
    host.links.retain_routes(outer, &publics).await
}

fn prepare_outer(name: &str) -> Result<(), NetworkError> {
    if Path::new("/proc/sys/net/ipv6").exists() {
        sysctl(&format!("net/ipv6/conf/{name}/disable_ipv6"), "1")?;
    }
    // Two public addresses of one VPC meet here: in and out by the same link, which is right.
    sysctl(&format!("net/ipv4/conf/{name}/send_redirects"), "0")
}

fn missing_link(found: Option<u32>, name: &str) -> Result<u32, NetworkError> {
    found.ok_or_else(|| system_error(format!("looking for {name}"), std::io::ErrorKind::NotFound.into()))
}
