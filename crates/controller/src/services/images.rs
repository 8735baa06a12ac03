//! AMIs. Their disks come and are looked into in [`super::image_disks`].

use std::sync::Arc;

use hearth_api::filter::{Filters, Known, no};
use hearth_api::known;
use hearth_api::page::{Page, paginate, refuse_page_of_ids};
use hearth_api::v1::{
    BlockDeviceMapping, DeregisterImageRequest, DeregisterImageResponse, DescribeImageAttributeRequest,
    DescribeImagesRequest, DescribeImagesResponse, EbsBlockDevice, Image, ImageAttribute,
    ModifyImageAttributeRequest, ModifyImageAttributeResponse, ResetImageAttributeRequest,
    ResetImageAttributeResponse, images_server,
};
use hearth_api::{ApiError, Kind};
use serde_json::json;
use tonic::{Request, Response, Status};

use super::{answer, image_attributes, input};
use crate::app::App;
use crate::catalog::volume_types::VolumeType;
use crate::state::noun::tell_tags;
use crate::state::{self, AVAILABLE, DEREGISTERED, State, Tags};
use crate::views::{self, ARCHITECTURE, HYPERVISOR, PLATFORM, ROOT_DEVICE, ROOT_DEVICE_TYPE, VIRTUALIZATION};

pub(super) const FILTERS: Known<Image> = known! {
    tags: |item| &item.tags;
    "architecture" => architecture,
    "block-device-mapping.delete-on-termination" => block_device_mappings.ebs.delete_on_termination,
    "block-device-mapping.device-name" => block_device_mappings.device_name,
    "block-device-mapping.encrypted" => block_device_mappings.ebs.encrypted,
    "block-device-mapping.snapshot-id" => none,
    "block-device-mapping.volume-size" => block_device_mappings.ebs.volume_size,
    "block-device-mapping.volume-type" => block_device_mappings.ebs.volume_type,
    "boot-mode" => boot_mode,
    "creation-date" => creation_date,
    "description" => description,
    "ena-support" => ena_support,
    "free-tier-eligible" => (no),
    "hypervisor" => hypervisor,
    "image-id" => image_id,
    "image-type" => image_type,
    "image-watermark.source-image-creation-time" => none,
    "image-watermark.source-image-id" => none,
    "image-watermark.source-image-region" => none,
    "image-watermark.watermark-creation-time" => none,
    "image-watermark.watermark-key" => none,
    "is-public" => public,
    "kernel-id" => none,
    "manifest-location" => image_location,
    "name" => name,
    "owner-alias" => none,
    "owner-id" => owner_id,
    "platform" => none,
    "product-code" => none,
    "product-code.type" => none,
    "ramdisk-id" => none,
    "root-device-name" => root_device_name,
    "root-device-type" => root_device_type,
    "source-image-id" => none,
    "source-image-region" => none,
    "source-instance-id" => none,
    "sriov-net-support" => none,
    "state" => state,
    "state-reason-code" => none,
    "state-reason-message" => none,
    "virtualization-type" => virtualization_type,
};

pub(super) struct Images(pub(super) Arc<App>);

#[tonic::async_trait]
impl images_server::Images for Images {
    async fn describe_images(
        &self,
        request: Request<DescribeImagesRequest>,
    ) -> Result<Response<DescribeImagesResponse>, Status> {
        answer(describe(&self.0, &request.into_inner()))
    }

    async fn deregister_image(
        &self,
        request: Request<DeregisterImageRequest>,
    ) -> Result<Response<DeregisterImageResponse>, Status> {
        answer(deregister(&self.0, request.into_inner()).await)
    }

    async fn describe_image_attribute(
        &self,
        request: Request<DescribeImageAttributeRequest>,
    ) -> Result<Response<ImageAttribute>, Status> {
        answer(image_attributes::describe(&self.0, &request.into_inner()))
    }

    async fn modify_image_attribute(
        &self,
        request: Request<ModifyImageAttributeRequest>,
    ) -> Result<Response<ModifyImageAttributeResponse>, Status> {
        answer(image_attributes::modify(&self.0, request.into_inner()).await)
    }

    async fn reset_image_attribute(
        &self,
        request: Request<ResetImageAttributeRequest>,
    ) -> Result<Response<ResetImageAttributeResponse>, Status> {
        answer(image_attributes::reset(&self.0, request.into_inner()).await)
    }
}

fn describe(app: &App, request: &DescribeImagesRequest) -> Result<DescribeImagesResponse, ApiError> {
    let page = Page::new(request.max_results, &request.next_token);
    refuse_page_of_ids(&request.image_ids, page, "imagesSet")?;
    let filters = Filters::new(&request.filters, &FILTERS)?;
    let state = app.state();
    input::all_known(Kind::Image, &request.image_ids, |id| {
        state
            .get::<state::Image>(id)
            .is_some_and(state::Image::is_available)
    })?;
    let account = app.account();
    let wanted = state.by(&state::Image::BY_STATE, AVAILABLE).filter(|row| {
        let owns = |name: &String| *name == row.account_id || (name == "self" && row.account_id == account);
        // Those that were given the right to launch it, which its owner has anyway.
        let may_launch = |name: &String| match name.as_str() {
            "all" => row.is_public,
            "self" => row.shared_with.contains(&account),
            id => row.shared_with.contains(id),
        };
        let is_among =
            |names: &[String], is: &dyn Fn(&String) -> bool| names.is_empty() || names.iter().any(is);
        (request.image_ids.is_empty() || request.image_ids.contains(&row.id))
            && is_among(&request.owners, &owns)
            && is_among(&request.executable_users, &may_launch)
    });
    let tell = |row: &state::Image| {
        let image = tell(&state, row);
        filters.matches(&image).then_some(image)
    };
    let (images, next_token) = paginate(wanted, page, |row| row.id.clone(), tell)?;
    Ok(DescribeImagesResponse { images, next_token })
}

/// Tags are the owner's alone.
pub(super) fn tell(state: &State, row: &state::Image) -> Image {
    Image {
        image_id: row.id.clone(),
        name: row.name.clone(),
        description: row.description.clone(),
        state: row.state.clone(),
        architecture: ARCHITECTURE.into(),
        creation_date: views::time(row.created_at),
        root_device_name: ROOT_DEVICE.into(),
        block_device_mappings: vec![BlockDeviceMapping {
            device_name: ROOT_DEVICE.into(),
            ebs: Some(EbsBlockDevice {
                delete_on_termination: Some(true),
                volume_size: i32::try_from(row.size.div_ceil(1 << 30)).unwrap_or(i32::MAX),
                volume_type: VolumeType::Gp3.as_str().into(),
                ..EbsBlockDevice::default()
            }),
            no_device: None,
        }],
        tags: state.tags(Kind::Image, &row.id).map_or_else(Vec::new, tell_tags),
        owner_id: row.account_id.clone(),
        boot_mode: row.boot_mode.as_str().to_owned(),
        ena_support: false,
        hypervisor: HYPERVISOR.into(),
        image_location: format!("{}/{}", row.account_id, row.name),
        image_type: "machine".into(),
        platform_details: PLATFORM.into(),
        public: row.is_public,
        root_device_type: ROOT_DEVICE_TYPE.into(),
        virtualization_type: VIRTUALIZATION.into(),
    }
}

/// Instances that were launched from it go on; the janitor removes the disk when the last of their volumes is gone.
async fn deregister(app: &App, request: DeregisterImageRequest) -> Result<DeregisterImageResponse, ApiError> {
    let id = input::id(Kind::Image, &request.image_id, "ImageId")?;
    app.store
        .transact(move |tx| {
            let image = image_attributes::own(tx, &id)?.clone();
            tx.put(state::Image {
                state: DEREGISTERED.to_owned(),
                tags: Tags::new(),
                ..image
            });
            tx.audit(json!({ "image": id.as_str() }));
            tx.event("image.deregistered", &id);
            Ok(DeregisterImageResponse { r#return: true })
        })
        .await
}
