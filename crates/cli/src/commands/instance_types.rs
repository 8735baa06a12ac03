//! Instance types.

use clap::Args;
use hearth_api::v1;

use super::{Filtering, Paging};
use crate::context::Context;
use crate::error::CliError;
use crate::parameters;
use crate::shapes::instance_types::InstanceTypes;

/// Describes the figures of instance types.
#[derive(Args)]
pub(super) struct DescribeInstanceTypes {
    #[arg(long, num_args = 1.., value_name = "TYPE")]
    instance_types: Vec<String>,
    #[command(flatten)]
    filtering: Filtering,
    #[command(flatten)]
    paging: Paging,
}

impl DescribeInstanceTypes {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let request = v1::DescribeInstanceTypesRequest {
            instance_types: self.instance_types,
            filters: parameters::filters(&self.filtering.filters)?,
            max_results: self.paging.max_results,
            next_token: self.paging.next_token,
            dry_run: self.filtering.dry_run.dry_run,
        };
        let answer = context
            .client()
            .await?
            .instance_types
            .describe_instance_types(request)
            .await;
        context.print(&InstanceTypes::from(
            context.answered("DescribeInstanceTypes", answer)?,
        ))
    }
}
