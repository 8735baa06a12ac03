//! Regions, availability zones, VPCs and subnets.

use clap::Args;
use hearth_api::v1;

use super::{Filtering, Paging};
use crate::context::Context;
use crate::error::CliError;
use crate::parameters;
use crate::shapes::places::{AvailabilityZones, Regions, Subnets, Vpcs};

/// Describes regions.
#[derive(Args)]
pub(super) struct DescribeRegions {
    #[arg(long, num_args = 1.., value_name = "REGION")]
    region_names: Vec<String>,
    #[command(flatten)]
    filtering: Filtering,
}

impl DescribeRegions {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let request = v1::DescribeRegionsRequest {
            region_names: self.region_names,
            filters: parameters::filters(&self.filtering.filters)?,
            dry_run: self.filtering.dry_run.dry_run,
        };
        let answer = context.client().await?.regions.describe_regions(request).await;
        context.print(&Regions::from(context.answered("DescribeRegions", answer)?))
    }
}

/// Describes the availability zones, and whether a host of each is connected.
#[derive(Args)]
pub(super) struct DescribeAvailabilityZones {
    #[arg(long, num_args = 1.., value_name = "ZONE")]
    zone_names: Vec<String>,
    #[command(flatten)]
    filtering: Filtering,
}

impl DescribeAvailabilityZones {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let request = v1::DescribeAvailabilityZonesRequest {
            zone_names: self.zone_names,
            filters: parameters::filters(&self.filtering.filters)?,
            dry_run: self.filtering.dry_run.dry_run,
        };
        let answer = context
            .client()
            .await?
            .regions
            .describe_availability_zones(request)
            .await;
        context.print(&AvailabilityZones::from(
            context.answered("DescribeAvailabilityZones", answer)?,
        ))
    }
}

/// Describes the VPCs.
#[derive(Args)]
pub(super) struct DescribeVpcs {
    #[arg(long, num_args = 1.., value_name = "VPC")]
    vpc_ids: Vec<String>,
    #[command(flatten)]
    filtering: Filtering,
    #[command(flatten)]
    paging: Paging,
}

impl DescribeVpcs {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let request = v1::DescribeVpcsRequest {
            vpc_ids: self.vpc_ids,
            filters: parameters::filters(&self.filtering.filters)?,
            page: self.paging.into(),
            dry_run: self.filtering.dry_run.dry_run,
        };
        let answer = context.client().await?.vpcs.describe_vpcs(request).await;
        context.print(&Vpcs::from(context.answered("DescribeVpcs", answer)?))
    }
}

/// Describes the subnets.
#[derive(Args)]
pub(super) struct DescribeSubnets {
    #[arg(long, num_args = 1.., value_name = "SUBNET")]
    subnet_ids: Vec<String>,
    #[command(flatten)]
    filtering: Filtering,
    #[command(flatten)]
    paging: Paging,
}

impl DescribeSubnets {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let request = v1::DescribeSubnetsRequest {
            subnet_ids: self.subnet_ids,
            filters: parameters::filters(&self.filtering.filters)?,
            page: self.paging.into(),
            dry_run: self.filtering.dry_run.dry_run,
        };
        let answer = context.client().await?.subnets.describe_subnets(request).await;
        context.print(&Subnets::from(context.answered("DescribeSubnets", answer)?))
    }
}
