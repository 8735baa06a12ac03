//! Instances: launching, telling, rebooting.

use clap::Args;
use hearth_api::v1;

use super::{DryRun, Filtering, Paging, Tagging};
use crate::context::Context;
use crate::error::CliError;
use crate::parameters;
use crate::shapes::instance_status::InstanceStatuses;
use crate::shapes::instances::{ConsoleOutput, ModifiedMaintenanceOptions, Reservation, Reservations};
use crate::wait::{Waiter, Waiting};

/// Launches instances.
#[derive(Args)]
pub(super) struct RunInstances {
    #[arg(long, value_name = "AMI")]
    image_id: String,
    /// t2.micro unless told; `describe-instance-types` tells what there is.
    #[arg(long, value_name = "TYPE", default_value = "", hide_default_value = true)]
    instance_type: String,
    /// How many: a number, or the least and the most, as 1:3.
    #[arg(long, value_name = "NUMBER", default_value = "1")]
    count: String,
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    key_name: String,
    #[arg(long, num_args = 1.., value_name = "GROUP")]
    security_group_ids: Vec<String>,
    /// Names, in the default VPC only.
    #[arg(long, num_args = 1.., value_name = "NAME")]
    security_groups: Vec<String>,
    #[arg(long, value_name = "SUBNET", default_value = "", hide_default_value = true)]
    subnet_id: String,
    #[arg(long, value_name = "AvailabilityZone=...")]
    placement: Option<String>,
    /// A script or cloud-config, usually as file://PATH; 16 KiB at most.
    #[arg(long, value_name = "TEXT")]
    user_data: Option<String>,
    /// The same token and parameters again answer the same reservation.
    #[arg(long, value_name = "TOKEN", default_value = "", hide_default_value = true)]
    client_token: String,
    /// HttpTokens=required admits IMDSv2 only; InstanceMetadataTags=enabled puts the tags into the metadata.
    #[arg(
        long,
        value_name = "HttpTokens=...,HttpEndpoint=...,HttpPutResponseHopLimit=...,InstanceMetadataTags=..."
    )]
    metadata_options: Option<String>,
    /// AutoRecovery=disabled: when its host restarts, the instance is stopped instead of being started again.
    #[arg(long, value_name = "AutoRecovery=...")]
    maintenance_options: Option<String>,
    /// What a power-off from inside does: stop (unless told) or terminate.
    #[arg(long, value_name = "BEHAVIOR", default_value = "", hide_default_value = true)]
    instance_initiated_shutdown_behavior: String,
    #[arg(long, num_args = 1.., value_name = "DeviceName=...,Ebs={VolumeSize=...,DeleteOnTermination=...}")]
    block_device_mappings: Vec<String>,
    /// A wish for one address out of the subnet.
    #[arg(long, value_name = "ADDRESS", default_value = "", hide_default_value = true)]
    private_ip_address: String,
    /// Gives a public address even where the subnet does not.
    #[arg(long, overrides_with = "no_associate_public_ip_address")]
    associate_public_ip_address: bool,
    /// Gives no public address even where the subnet does.
    #[arg(long)]
    no_associate_public_ip_address: bool,
    #[command(flatten)]
    tagging: Tagging,
    #[command(flatten)]
    dry_run: DryRun,
    #[command(flatten)]
    waiting: Waiting,
}

impl RunInstances {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let waiting = self.waiting;
        let request = self.request()?;
        let mut client = context.client().await?;
        let answer = client.instances.run_instances(request).await;
        let mut reservation = context.answered("RunInstances", answer)?;
        let ids = reservation
            .instances
            .iter()
            .map(|i| i.instance_id.clone())
            .collect();
        if let Some(mut seen) = waiting.wait(context, &mut client, Waiter::Running, ids).await? {
            for instance in &mut reservation.instances {
                if let Some(now) = seen.remove(&instance.instance_id) {
                    *instance = now;
                }
            }
        }
        context.print(&Reservation::from(reservation))
    }

    fn request(self) -> Result<v1::RunInstancesRequest, CliError> {
        let (min_count, max_count) = count(&self.count)?;
        let public = match (
            self.associate_public_ip_address,
            self.no_associate_public_ip_address,
        ) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        };
        Ok(v1::RunInstancesRequest {
            image_id: self.image_id,
            instance_type: self.instance_type,
            min_count,
            max_count,
            key_name: self.key_name,
            security_group_ids: self.security_group_ids,
            security_groups: self.security_groups,
            subnet_id: self.subnet_id,
            placement: self.placement.as_deref().map(parameters::placement).transpose()?,
            user_data: match &self.user_data {
                Some(data) => parameters::load_bytes("--user-data", data)?,
                None => Vec::new(),
            },
            client_token: self.client_token,
            dry_run: self.dry_run.dry_run,
            tag_specifications: parameters::tag_specifications(&self.tagging.tag_specifications)?,
            metadata_options: self
                .metadata_options
                .as_deref()
                .map(parameters::metadata_options)
                .transpose()?,
            maintenance_options: self
                .maintenance_options
                .as_deref()
                .map(parameters::maintenance_options)
                .transpose()?,
            instance_initiated_shutdown_behavior: self.instance_initiated_shutdown_behavior,
            block_device_mappings: parameters::block_device_mappings(&self.block_device_mappings)?,
            private_ip_address: self.private_ip_address,
            associate_public_ip_address: public,
        })
    }
}

/// The least and the most that `--count` names.
fn count(text: &str) -> Result<(i32, i32), CliError> {
    let number = |text: &str| {
        text.parse::<i32>()
            .map_err(|_| CliError::parameter("--count", format!("'{text}' is no number; say 2, or 1:3")))
    };
    match text.split_once(':') {
        Some((min, max)) => Ok((number(min)?, number(max)?)),
        None => number(text).map(|n| (n, n)),
    }
}

/// Describes instances.
#[derive(Args)]
pub(super) struct DescribeInstances {
    #[arg(long, num_args = 1.., value_name = "INSTANCE")]
    instance_ids: Vec<String>,
    #[command(flatten)]
    filtering: Filtering,
    #[command(flatten)]
    paging: Paging,
}

impl DescribeInstances {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let request = v1::DescribeInstancesRequest {
            instance_ids: self.instance_ids,
            filters: parameters::filters(&self.filtering.filters)?,
            max_results: self.paging.max_results,
            next_token: self.paging.next_token,
            dry_run: self.filtering.dry_run.dry_run,
        };
        let answer = context
            .client()
            .await?
            .instances
            .describe_instances(request)
            .await;
        context.print(&Reservations::from(
            context.answered("DescribeInstances", answer)?,
        ))
    }
}

/// Says of running instances whether they and their hosts are well.
#[derive(Args)]
pub(super) struct DescribeInstanceStatus {
    #[arg(long, num_args = 1.., value_name = "INSTANCE")]
    instance_ids: Vec<String>,
    /// Those of all states.
    #[arg(long)]
    include_all_instances: bool,
    #[command(flatten)]
    filtering: Filtering,
    #[command(flatten)]
    paging: Paging,
}

impl DescribeInstanceStatus {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let request = v1::DescribeInstanceStatusRequest {
            instance_ids: self.instance_ids,
            filters: parameters::filters(&self.filtering.filters)?,
            max_results: self.paging.max_results,
            next_token: self.paging.next_token,
            dry_run: self.filtering.dry_run.dry_run,
            include_all_instances: self.include_all_instances,
        };
        let mut client = context.client().await?;
        let answer = client.instances.describe_instance_status(request).await;
        context.print(&InstanceStatuses::from(
            context.answered("DescribeInstanceStatus", answer)?,
        ))
    }
}

/// Reboots instances; they keep their volumes and addresses.
#[derive(Args)]
pub(super) struct RebootInstances {
    #[arg(long, num_args = 1.., required = true, value_name = "INSTANCE")]
    instance_ids: Vec<String>,
    #[command(flatten)]
    dry_run: DryRun,
}

impl RebootInstances {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let request = v1::RebootInstancesRequest {
            instance_ids: self.instance_ids,
            dry_run: self.dry_run.dry_run,
        };
        let answer = context.client().await?.instances.reboot_instances(request).await;
        context.answered("RebootInstances", answer).map(drop)
    }
}

/// Says whether an instance is started again after a restart of its host (default) or stopped (disabled).
#[derive(Args)]
pub(super) struct ModifyInstanceMaintenanceOptions {
    #[arg(long, value_name = "INSTANCE")]
    instance_id: String,
    #[arg(long, value_name = "default|disabled")]
    auto_recovery: String,
    #[command(flatten)]
    dry_run: DryRun,
}

impl ModifyInstanceMaintenanceOptions {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let request = v1::ModifyInstanceMaintenanceOptionsRequest {
            instance_id: self.instance_id,
            auto_recovery: self.auto_recovery,
            dry_run: self.dry_run.dry_run,
        };
        let answer = context
            .client()
            .await?
            .instances
            .modify_instance_maintenance_options(request)
            .await;
        context.print(&ModifiedMaintenanceOptions::from(
            context.answered("ModifyInstanceMaintenanceOptions", answer)?,
        ))
    }
}

/// Prints the last 64 KiB of an instance's console; `hearth console` prints them readably.
#[derive(Args)]
pub(super) struct GetConsoleOutput {
    #[arg(long, value_name = "INSTANCE")]
    instance_id: String,
    #[command(flatten)]
    dry_run: DryRun,
}

impl GetConsoleOutput {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let request = v1::GetConsoleOutputRequest {
            instance_id: self.instance_id,
            dry_run: self.dry_run.dry_run,
        };
        let answer = context
            .client()
            .await?
            .instances
            .get_console_output(request)
            .await;
        context.print(&ConsoleOutput::from(
            context.answered("GetConsoleOutput", answer)?,
        ))
    }
}
