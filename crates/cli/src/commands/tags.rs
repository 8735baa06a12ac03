//! Tags.

use clap::Args;
use hearth_api::v1;

use super::{DryRun, Filtering, Paging};
use crate::context::Context;
use crate::error::CliError;
use crate::parameters;
use crate::shapes::tags::Tags;

/// Adds tags to resources, or overwrites their values.
#[derive(Args)]
pub(super) struct CreateTags {
    /// Ids of instances, images, volumes, security groups ...
    #[arg(long, num_args = 1.., required = true, value_name = "ID")]
    resources: Vec<String>,
    #[arg(long, num_args = 1.., required = true, value_name = "Key=...,Value=...")]
    tags: Vec<String>,
    #[command(flatten)]
    dry_run: DryRun,
}

impl CreateTags {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let request = v1::CreateTagsRequest {
            resources: self.resources,
            tags: parameters::tags(&self.tags)?,
            dry_run: self.dry_run.dry_run,
        };
        let answer = context.client().await?.tags.create_tags(request).await;
        context.answered("CreateTags", answer).map(drop)
    }
}

/// Removes tags from resources: the named keys, or all.
#[derive(Args)]
pub(super) struct DeleteTags {
    #[arg(long, num_args = 1.., required = true, value_name = "ID")]
    resources: Vec<String>,
    /// With a value, only where the tag has that value.
    #[arg(long, num_args = 1.., value_name = "Key=...[,Value=...]")]
    tags: Vec<String>,
    #[command(flatten)]
    dry_run: DryRun,
}

impl DeleteTags {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let request = v1::DeleteTagsRequest {
            resources: self.resources,
            tags: parameters::tags_to_delete(&self.tags)?,
            dry_run: self.dry_run.dry_run,
        };
        let answer = context.client().await?.tags.delete_tags(request).await;
        context.answered("DeleteTags", answer).map(drop)
    }
}

/// Describes which resources have which tags.
#[derive(Args)]
pub(super) struct DescribeTags {
    #[command(flatten)]
    filtering: Filtering,
    #[command(flatten)]
    paging: Paging,
}

impl DescribeTags {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let request = v1::DescribeTagsRequest {
            filters: parameters::filters(&self.filtering.filters)?,
            max_results: self.paging.max_results,
            next_token: self.paging.next_token,
            dry_run: self.filtering.dry_run.dry_run,
        };
        let answer = context.client().await?.tags.describe_tags(request).await;
        context.print(&Tags::from(context.answered("DescribeTags", answer)?))
    }
}
