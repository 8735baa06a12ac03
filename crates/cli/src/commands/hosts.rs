//! Hosts: the operator's commands.

use clap::Args;
use hearth_api::v1;

use super::DryRun;
use crate::context::Context;
use crate::error::CliError;
use crate::shapes::hosts::{Drained, Forgotten, Hosts, Resumed};

/// Lists the hosts, what instances claim of them, and whether they are connected.
///
/// States: pending (joined, its agent has not come yet), connected, disconnected, unknown (silent for long: DescribeInstanceStatus
/// calls its instances impaired). A host that is unknown comes back by itself when its agent does; see forget-host for one
/// that will not.
#[derive(Args)]
pub(super) struct ListHosts {}

impl ListHosts {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let request = v1::ListHostsRequest {};
        let answer = context.client().await?.hosts.list_hosts(request).await;
        context.print(&Hosts::from(context.answered("ListHosts", answer)?))
    }
}

/// Places nothing on a host any more, as before its maintenance; resume-host ends that.
///
/// Its instances go on. With --stop-instances those that run are stopped, and those that are starting as soon as they run;
/// they stay stopped after resume-host, until they are started. An instance can be started on its own host only, for its
/// root volume is there: on a drained host it cannot.
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct DrainHost {
    #[arg(long, value_name = "HOST")]
    host_id: String,
    /// Stops its instances.
    #[arg(long)]
    stop_instances: bool,
    #[command(flatten)]
    dry_run: DryRun,
}

impl DrainHost {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let request = v1::DrainHostRequest {
            host_id: self.host_id,
            stop_instances: self.stop_instances,
            dry_run: self.dry_run.dry_run,
        };
        let answer = context.client().await?.hosts.drain_host(request).await;
        context.print(&Drained::from(context.answered("DrainHost", answer)?))
    }
}

/// Ends a drain: instances are placed on the host again. Those that the drain stopped stay stopped.
#[derive(Args)]
pub(super) struct ResumeHost {
    #[arg(long, value_name = "HOST")]
    host_id: String,
    #[command(flatten)]
    dry_run: DryRun,
}

impl ResumeHost {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let request = v1::ResumeHostRequest {
            host_id: self.host_id,
            dry_run: self.dry_run.dry_run,
        };
        let answer = context.client().await?.hosts.resume_host(request).await;
        context.print(&Resumed::from(context.answered("ResumeHost", answer)?))
    }
}

/// Removes a host from the cloud: its session ends, and its certificates are refused from then on.
///
/// A host that has instances is not forgotten: terminate them first; those that are shutting down become terminated. With
/// --force all become terminated at once, as EC2 terminates instances whose disks are lost with their host: their root
/// volumes are on this host, and they cannot be started on another.
///
/// The host's agent ends its guests as soon as it hears of that: at once, or when a host that was silent comes back. A host
/// that cannot reach the control plane runs its guests until then: switch it off first. Volumes that the cloud gives up stay
/// on the host's disk.
///
/// To let the machine join anew: `hearthd join-token`, remove pki/ in the agent's data directory, run `hearth-agent join`
/// with the token, and start hearth-agent.
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(super) struct ForgetHost {
    #[arg(long, value_name = "HOST")]
    host_id: String,
    /// Forgets the host although it has instances or volumes.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    dry_run: DryRun,
}

impl ForgetHost {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let request = v1::ForgetHostRequest {
            host_id: self.host_id,
            force: self.force,
            dry_run: self.dry_run.dry_run,
        };
        let answer = context.client().await?.hosts.forget_host(request).await;
        context.print(&Forgotten::from(context.answered("ForgetHost", answer)?))
    }
}
