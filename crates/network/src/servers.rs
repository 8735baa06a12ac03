//! The servers of a VPC's interfaces: DHCP, DNS and IMDS, on sockets of each interface's TAP.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;

use crate::host::Host;
use crate::imds::{self, Imds};
use crate::netns::system_error;
use crate::plan::{CurrentPlan, Plan, first_host};
use crate::spec::EniSpec;
use crate::{NetworkError, dhcp, dns};

/// Those that run in one VPC. They end when it is dropped.
pub(crate) struct Servers {
    imds: Arc<Imds>,
    dns: Arc<dns::Dns>,
    /// By interface id.
    running: BTreeMap<String, Running>,
}

/// The servers of one interface.
struct Running {
    lease: dhcp::Lease,
    task: AbortOnDropHandle<()>,
}

/// The sockets of one interface's servers.
pub(crate) struct Sockets {
    dhcp: OwnedFd,
    dns: dns::Sockets,
    imds: OwnedFd,
}

impl Sockets {
    /// In the calling thread's namespace, on the TAP, which must exist.
    ///
    /// # Errors
    /// An address is not the namespace's, or another process serves there.
    pub(crate) fn open(tap: &str, dns: &[Ipv4Addr]) -> Result<Self, NetworkError> {
        let failed = |server| move |e| system_error(format!("opening the {server} sockets of {tap}"), e);
        Ok(Self {
            dhcp: dhcp::open_socket(tap).map_err(failed("DHCP"))?,
            dns: dns::Sockets::open(tap, dns).map_err(failed("DNS"))?,
            imds: imds::open_listener(tap).map_err(failed("IMDS"))?,
        })
    }
}

impl Servers {
    pub(crate) fn new(plan: CurrentPlan, host: &Host) -> Self {
        let imds = Imds::new(plan.clone(), host.metadata.clone(), host.config.imds_key);
        Self {
            imds: Arc::new(imds),
            dns: Arc::new(dns::Dns::new(plan, host.upstream.clone())),
            running: BTreeMap::new(),
        }
    }

    /// Whether the interface is served as the plan says it, by servers that have not ended.
    pub(crate) fn serves(&self, eni: &EniSpec, plan: &Plan, host: &Host) -> bool {
        let lease = lease(eni, plan, host);
        self.running
            .get(&eni.eni_id)
            .is_some_and(|running| running.lease == lease && !running.task.is_finished())
    }

    /// Ends the interface's servers. On return their addresses are free.
    pub(crate) async fn stop(&mut self, eni_id: &str) {
        if let Some(running) = self.running.remove(eni_id) {
            running.task.abort();
            // It was aborted, or had ended: either way its sockets are closed.
            let _ = running.task.await;
        }
    }

    /// Serves the interface, which must not be served yet, on these sockets.
    pub(crate) fn start(&mut self, eni: &EniSpec, plan: &Plan, host: &Host, sockets: Sockets) {
        let share = host.shares.of(&plan.vpc_id, &eni.eni_id, eni.private_ip);
        let lease = lease(eni, plan, host);
        let (dns, imds) = (self.dns.clone(), self.imds.clone());
        let (address, dhcp_lease) = (eni.private_ip, lease.clone());
        let task = tokio::spawn(async move {
            let ended = tokio::join!(
                dhcp::serve(sockets.dhcp, share.clone(), dhcp_lease),
                dns::serve(sockets.dns, share.clone(), dns),
                imds::serve(sockets.imds, share.clone(), imds),
            );
            for (server, ended) in [("DHCP", ended.0), ("DNS", ended.1), ("IMDS", ended.2)] {
                if let Err(error) = ended {
                    tracing::error!(%address, %error, "the {server} server ended");
                }
            }
        });
        let running = Running {
            lease,
            task: AbortOnDropHandle::new(task),
        };
        self.running.insert(eni.eni_id.clone(), running);
    }

    /// Ends the servers of interfaces that the plan has no more, and forgets their counters.
    pub(crate) fn retain(&mut self, plan: &Plan, host: &Host) {
        self.running.retain(|eni_id, _| plan.eni(eni_id).is_some());
        host.shares
            .retain(&plan.vpc_id, |eni_id| plan.eni(eni_id).is_some());
    }
}

fn lease(eni: &EniSpec, plan: &Plan, host: &Host) -> dhcp::Lease {
    let [dns, _] = plan.dns();
    let (hostname, domain) = eni.hostname.split_once('.').unwrap_or((&eni.hostname, ""));
    dhcp::Lease {
        mac: eni.mac,
        address: eni.private_ip,
        subnet: eni.subnet,
        router: first_host(&eni.subnet),
        dns,
        hostname: hostname.to_owned(),
        domain: domain.to_owned(),
        mtu: host.config.mtu,
    }
}
