//! `hearth upload-image`: a call that streams.

use std::path::PathBuf;

use clap::Args;
use hearth_api::v1::upload_image_request::Parameters;
use serde_json::json;

use crate::calls::structures;
use crate::context::Context;
use crate::error::CliError;
use crate::shorthand;
use crate::upload::DiskImage;

/// Uploads a raw disk image that has a boot loader, and registers it as an AMI.
#[derive(Args)]
pub(super) struct UploadImage {
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
    /// Tags to put on the AMI.
    #[arg(long, num_args = 1.., value_name = "ResourceType=image,Tags=[{Key=...,Value=...}]")]
    tag_specifications: Vec<String>,
    /// Checks whether the AMI could be made, without doing anything.
    #[arg(long)]
    dry_run: bool,
}

impl UploadImage {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let disk = DiskImage::open(&self.disk_image)?;
        let tags = shorthand::items("--tag-specifications", &self.tag_specifications)?;
        let parameters: Parameters = structures::typed(json!({
            "Name": self.name, "Description": self.description, "Size": disk.size(), "DryRun": self.dry_run,
            "TagSpecifications": tags, "BootMode": self.boot_mode,
        }))?;
        let mut client = context.client().await?;
        let answer = disk.upload(&mut client, parameters).await?;
        let answer = context.answered("UploadImage", answer)?;
        context
            .printer
            .print("UploadImage", &structures::json_of(&answer)?)
    }
}
