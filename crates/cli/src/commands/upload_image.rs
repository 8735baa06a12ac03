//! `hearth upload-image`: a call that streams.

use std::path::Path;

use clap::Args;
use hearth_api::v1::upload_image_request::Parameters;
use serde_json::json;

use crate::calls::structures;
use crate::context::Context;
use crate::download;
use crate::error::CliError;
use crate::shorthand;
use crate::upload::DiskImage;

/// Uploads a disk image that has a boot loader, and registers it as an AMI: a raw one, a qcow2 image or a fixed VHD, also
/// compressed by gzip, bzip2, xz or zstd.
#[derive(Args)]
pub(super) struct UploadImage {
    #[arg(long, value_name = "NAME")]
    name: String,
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,
    /// A file, or an https:// or http:// address, which is fetched first.
    #[arg(long, value_name = "FILE")]
    disk_image: String,
    /// Of the file at the address, in hex.
    #[arg(long, value_name = "DIGEST")]
    sha256: Option<String>,
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
    async fn disk(&self) -> Result<DiskImage, CliError> {
        if !download::is_address(&self.disk_image) {
            if self.sha256.is_some() {
                let problem = "It is of a file at an address, and --disk-image names a local one";
                return Err(CliError::parameter("--sha256", problem));
            }
            return DiskImage::open(Path::new(&self.disk_image));
        }
        let Some(sha256) = self.sha256.clone() else {
            return Err(CliError::parameter(
                "--disk-image",
                "An address needs the SHA-256 of the file that it names. Give it by --sha256; its publisher tells it",
            ));
        };
        let address = self.disk_image.clone();
        let fetched = tokio::task::spawn_blocking(move || download::fetch(&address, &sha256)).await;
        let fetched = fetched.map_err(|error| CliError::io("fetching", std::io::Error::other(error)))?;
        DiskImage::fetched(&self.disk_image, fetched?)
    }

    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let disk = self.disk().await?;
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
