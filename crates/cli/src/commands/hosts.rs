//! Hosts: the operator's commands.

use clap::Args;
use hearth_api::v1;

use super::DryRun;
use crate::context::Context;
use crate::error::CliError;
use crate::shapes::hosts::{Forgotten, Hosts};

/// Lists the hosts, what instances claim of them, and whether they are connected.
#[derive(Args)]
pub(super) struct ListHosts {}

impl ListHosts {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let request = v1::ListHostsRequest {};
        let answer = context.client().await?.hosts.list_hosts(request).await;
        context.print(&Hosts::from(context.answered("ListHosts", answer)?))
    }
}

/// Removes a host from the cloud: its session ends, and its certificates are refused from then on.
///
/// A host that has instances is not forgotten: terminate them first. With --force they become terminated at once, as EC2
/// terminates instances whose disks are lost with their host.
///
/// Nothing on the host itself is ended. A guest that runs there runs on, with the addresses that it had, which new
/// instances may get: with --force switch the host off first, or run `hearth-agent cleanup` there. Volumes that the cloud
/// gives up stay on the host's disk.
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
