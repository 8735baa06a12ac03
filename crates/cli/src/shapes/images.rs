//! AMIs.

use hearth_api::v1;
use serde::Serialize;

use super::{Tag, readable, readable_size, table, tags, time_as_string};
use crate::output::Answer;

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Images {
    images: Vec<Image>,
    #[serde(skip_serializing_if = "String::is_empty")]
    next_token: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    block_device_mappings: Vec<BlockDeviceMapping>,
    description: String,
    hypervisor: &'static str,
    name: String,
    root_device_name: String,
    root_device_type: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<Tag>,
    virtualization_type: &'static str,
    image_id: String,
    state: String,
    owner_id: String,
    creation_date: String,
    architecture: String,
    image_type: &'static str,
    boot_mode: String,
    /// Hearth's own: the kernel that is booted directly.
    kernel_path: String,
    #[serde(skip)]
    size: i64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct BlockDeviceMapping {
    device_name: String,
    ebs: Ebs,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Ebs {
    delete_on_termination: bool,
    volume_size: i64,
}

impl From<v1::DescribeImagesResponse> for Images {
    fn from(answer: v1::DescribeImagesResponse) -> Self {
        Self {
            images: answer.images.into_iter().map(Image::from).collect(),
            next_token: answer.next_token,
        }
    }
}

impl From<v1::Image> for Image {
    fn from(image: v1::Image) -> Self {
        let mapping = |m: v1::image::BlockDevice| BlockDeviceMapping {
            device_name: m.device_name,
            ebs: Ebs {
                delete_on_termination: true,
                volume_size: m.volume_size,
            },
        };
        Self {
            block_device_mappings: image.block_device_mappings.into_iter().map(mapping).collect(),
            description: image.description,
            hypervisor: "xen",
            name: image.name,
            root_device_name: image.root_device_name,
            root_device_type: "ebs",
            tags: tags(image.tags),
            virtualization_type: "hvm",
            image_id: image.image_id,
            state: image.state,
            owner_id: image.owner_id,
            creation_date: time_as_string(image.creation_date),
            architecture: image.architecture,
            image_type: "machine",
            boot_mode: image.boot_mode,
            kernel_path: image.kernel_path,
            size: image.size,
        }
    }
}

impl Answer for Images {
    fn table(&self) -> String {
        let row = |i: &Image| {
            [
                i.image_id.clone(),
                i.name.clone(),
                i.state.clone(),
                readable_size(i.size),
                i.boot_mode.clone(),
                i.kernel_path.clone(),
                readable(&i.creation_date),
            ]
        };
        let head = ["Image", "Name", "State", "Size", "Boot mode", "Kernel", "Created"];
        table::of_rows(head, self.images.iter().map(row).collect(), "No images.")
    }
}

/// The answer of `RegisterImage`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ImageId {
    pub(crate) image_id: String,
}

impl Answer for ImageId {
    fn table(&self) -> String {
        self.image_id.clone()
    }
}
