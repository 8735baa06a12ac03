//! AMIs.

use std::path::PathBuf;

use clap::Args;
use hearth_api::v1;

use super::{DryRun, Filtering, Paging, Tagging};
use crate::context::Context;
use crate::error::CliError;
use crate::parameters;
use crate::shapes::Done;
use crate::shapes::images::{ImageId, Images};
use crate::upload::DiskImage;

/// Uploads a raw disk image that has a boot loader, and registers it as an AMI.
#[derive(Args)]
pub(super) struct RegisterImage {
    #[arg(long, value_name = "NAME")]
    name: String,
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,
    #[arg(long, value_name = "FILE")]
    disk_image: PathBuf,
    /// legacy-bios: the disk's kernel is booted directly. uefi: firmware runs the disk's own loader. uefi-preferred: directly
    /// where that is certain, else by firmware. What the disk can do unless given.
    #[arg(long, value_name = "MODE", default_value = "", hide_default_value = true)]
    boot_mode: String,
    #[command(flatten)]
    tagging: Tagging,
    #[command(flatten)]
    dry_run: DryRun,
}

impl RegisterImage {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let disk = DiskImage::open(&self.disk_image)?;
        let parameters = v1::register_image_request::Parameters {
            name: self.name,
            description: self.description,
            size: disk.size(),
            dry_run: self.dry_run.dry_run,
            tag_specifications: parameters::tag_specifications(&self.tagging.tag_specifications)?,
            boot_mode: self.boot_mode,
        };
        let mut client = context.client().await?;
        let answer = disk.upload(&mut client, parameters).await?;
        let image_id = context.answered("RegisterImage", answer)?.image_id;
        context.print(&ImageId { image_id })
    }
}

/// Describes AMIs.
#[derive(Args)]
pub(super) struct DescribeImages {
    #[arg(long, num_args = 1.., value_name = "AMI")]
    image_ids: Vec<String>,
    #[command(flatten)]
    filtering: Filtering,
    #[command(flatten)]
    paging: Paging,
}

impl DescribeImages {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let request = v1::DescribeImagesRequest {
            image_ids: self.image_ids,
            filters: parameters::filters(&self.filtering.filters)?,
            max_results: self.paging.max_results,
            next_token: self.paging.next_token,
            dry_run: self.filtering.dry_run.dry_run,
        };
        let answer = context.client().await?.images.describe_images(request).await;
        context.print(&Images::from(context.answered("DescribeImages", answer)?))
    }
}

/// Takes an AMI away; instances that were launched from it go on.
#[derive(Args)]
pub(super) struct DeregisterImage {
    #[arg(long, value_name = "AMI")]
    image_id: String,
    #[command(flatten)]
    dry_run: DryRun,
}

impl DeregisterImage {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let request = v1::DeregisterImageRequest {
            image_id: self.image_id,
            dry_run: self.dry_run.dry_run,
        };
        let answer = context.client().await?.images.deregister_image(request).await;
        context.answered("DeregisterImage", answer)?;
        context.print(&Done::new("Deregistered."))
    }
}
