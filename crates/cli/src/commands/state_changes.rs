//! Starting, stopping and terminating instances.

use clap::Args;
use hearth_api::{Client, v1};

use super::DryRun;
use crate::context::Context;
use crate::error::CliError;
use crate::shapes::instances::StateChanges;
use crate::wait::{Waiter, Waiting};

/// Starts stopped instances.
#[derive(Args)]
pub(super) struct StartInstances {
    #[arg(long, num_args = 1.., required = true, value_name = "INSTANCE")]
    instance_ids: Vec<String>,
    #[command(flatten)]
    dry_run: DryRun,
    #[command(flatten)]
    waiting: Waiting,
}

impl StartInstances {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let mut client = context.client().await?;
        let request = v1::StartInstancesRequest {
            instance_ids: self.instance_ids,
            dry_run: self.dry_run.dry_run,
        };
        let answer = client.instances.start_instances(request).await;
        let changes = context.answered("StartInstances", answer)?.changes;
        let changes = finish(changes, self.waiting, context, &mut client, Waiter::Running).await?;
        context.print(&StateChanges::Starting(
            changes.into_iter().map(Into::into).collect(),
        ))
    }
}

/// Stops instances by their power button; their root volumes are kept.
#[derive(Args)]
pub(super) struct StopInstances {
    #[arg(long, num_args = 1.., required = true, value_name = "INSTANCE")]
    instance_ids: Vec<String>,
    /// Pulls the plug.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    dry_run: DryRun,
    #[command(flatten)]
    waiting: Waiting,
}

impl StopInstances {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let mut client = context.client().await?;
        let request = v1::StopInstancesRequest {
            instance_ids: self.instance_ids,
            force: self.force,
            dry_run: self.dry_run.dry_run,
        };
        let answer = client.instances.stop_instances(request).await;
        let changes = context.answered("StopInstances", answer)?.changes;
        let changes = finish(changes, self.waiting, context, &mut client, Waiter::Stopped).await?;
        context.print(&StateChanges::Stopping(
            changes.into_iter().map(Into::into).collect(),
        ))
    }
}

/// Ends instances for good.
#[derive(Args)]
pub(super) struct TerminateInstances {
    #[arg(long, num_args = 1.., required = true, value_name = "INSTANCE")]
    instance_ids: Vec<String>,
    #[command(flatten)]
    dry_run: DryRun,
    #[command(flatten)]
    waiting: Waiting,
}

impl TerminateInstances {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let mut client = context.client().await?;
        let request = v1::TerminateInstancesRequest {
            instance_ids: self.instance_ids,
            dry_run: self.dry_run.dry_run,
        };
        let answer = client.instances.terminate_instances(request).await;
        let changes = context.answered("TerminateInstances", answer)?.changes;
        let changes = finish(changes, self.waiting, context, &mut client, Waiter::Terminated).await?;
        context.print(&StateChanges::Terminating(
            changes.into_iter().map(Into::into).collect(),
        ))
    }
}

/// Where `--wait` asks for it, waits and replaces current states by those that were waited for.
async fn finish(
    mut changes: Vec<v1::InstanceStateChange>,
    waiting: Waiting,
    context: &Context,
    client: &mut Client,
    waiter: Waiter,
) -> Result<Vec<v1::InstanceStateChange>, CliError> {
    let ids = changes.iter().map(|change| change.instance_id.clone()).collect();
    if let Some(mut seen) = waiting.wait(context, client, waiter, ids).await? {
        for change in &mut changes {
            if let Some(now) = seen.remove(&change.instance_id) {
                change.current_state = now.state;
            }
        }
    }
    Ok(changes)
}
