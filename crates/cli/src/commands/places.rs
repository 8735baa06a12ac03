//! Availability zones.

use clap::Args;
use hearth_api::v1;

use super::Filtering;
use crate::context::Context;
use crate::error::CliError;
use crate::parameters;
use crate::shapes::places::AvailabilityZones;

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
