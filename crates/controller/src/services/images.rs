//! AMIs. Their disks come and are looked into in [`super::image_disks`].

use hearth_api::filter::{Filters, Known, no};
use hearth_api::known;
use hearth_api::page::{Page, paginate, refuse_page_of_ids};
use hearth_api::v1::{
    DeleteSnapshotReturnCode, DeregisterImageRequest, DeregisterImageResponse, DescribeImagesRequest,
    DescribeImagesResponse, Image, StateReason,
};
use hearth_api::{ApiError, ErrorCode, Kind};
use serde_json::json;

use super::{image_attributes, input, serve};
use crate::app::App;
use crate::state::noun::tell_tags;
use crate::state::{self, DEREGISTERED, ImageSource, PENDING, Scope, State, Tags, Tx};
use crate::views::{self, ARCHITECTURE, HYPERVISOR, PLATFORM, ROOT_DEVICE, ROOT_DEVICE_TYPE, VIRTUALIZATION};

mod copy;
mod create;
pub(super) mod devices;
mod register;

pub(super) const FILTERS: Known<Image> = known! {
    tags: |item| &item.tags;
    "architecture" => architecture,
    "block-device-mapping.delete-on-termination" => block_device_mappings.ebs.delete_on_termination,
    "block-device-mapping.device-name" => block_device_mappings.device_name,
    "block-device-mapping.encrypted" => block_device_mappings.ebs.encrypted,
    "block-device-mapping.snapshot-id" => block_device_mappings.ebs.snapshot_id,
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
    "source-image-id" => source_image_id,
    "source-image-region" => source_image_region,
    "source-instance-id" => source_instance_id,
    "sriov-net-support" => sriov_net_support,
    "state" => state,
    "state-reason-code" => state_reason.code,
    "state-reason-message" => state_reason.message,
    "virtualization-type" => virtualization_type,
};

serve! { images_server::Images as Images {
    register_image(RegisterImageRequest) -> RegisterImageResult: register::register;
    create_image(CreateImageRequest) -> CreateImageResult: create::create;
    copy_image(CopyImageRequest) -> CopyImageResult: copy::copy;
    describe_images(DescribeImagesRequest) -> DescribeImagesResponse: describe;
    deregister_image(DeregisterImageRequest) -> DeregisterImageResponse: deregister;
    describe_image_attribute(DescribeImageAttributeRequest) -> ImageAttribute: image_attributes::describe;
    modify_image_attribute(ModifyImageAttributeRequest) -> ModifyImageAttributeResponse: image_attributes::modify;
    reset_image_attribute(ResetImageAttributeRequest) -> ResetImageAttributeResponse: image_attributes::reset;
} }

/// # Errors
/// `InvalidAMIName.Malformed`; `InvalidParameterValue` for a description that is too long.
pub(super) fn check_name(name: &str, description: &str) -> Result<(), ApiError> {
    let admitted = |c: char| c.is_ascii_alphanumeric() || "()[] ./-'@_".contains(c);
    if name.is_empty() {
        return Err(ApiError::missing("Name"));
    }
    if !(3..=128).contains(&name.len()) || !name.chars().all(admitted) {
        return Err(ApiError::new(
            ErrorCode::InvalidAmiNameMalformed,
            format!("AMI names are 3 to 128 letters, digits and ()[] ./-'@_ characters; '{name}' is not."),
        ));
    }
    if description.chars().count() > 255 {
        return Err(ApiError::invalid_value(
            "Description",
            description,
            "At most 255 characters are admitted.",
        ));
    }
    Ok(())
}

/// # Errors
/// `InvalidAMIName.Duplicate`.
pub(super) fn name_is_free(state: &State, scope: &Scope, name: &str) -> Result<(), ApiError> {
    match state.image_named(scope, name) {
        None => Ok(()),
        Some(image) => Err(ApiError::new(
            ErrorCode::InvalidAmiNameDuplicate,
            format!(
                "AMI name {name} is already in use by AMI {}. Choose another name, or deregister that one.",
                image.id
            ),
        )),
    }
}

async fn describe(app: &App, request: DescribeImagesRequest) -> Result<DescribeImagesResponse, ApiError> {
    let page = Page::new(request.max_results, &request.next_token);
    refuse_page_of_ids(&request.image_ids, page, "imagesSet")?;
    let filters = Filters::new(&request.filters, &FILTERS)?;
    let state = app.state();
    input::all_known(Kind::Image, &request.image_ids, |id| {
        state
            .get::<state::Image>(id)
            .is_some_and(state::Image::is_registered)
    })?;
    let account = app.account();
    let registered = state.all::<state::Image>().filter(|row| row.is_registered());
    let wanted = registered.filter(|row| {
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
    let (mut instance, mut image, mut region) = ("", "", "");
    match &row.source {
        None => {}
        Some(ImageSource::Instance { instance_id }) => instance = instance_id,
        Some(ImageSource::Image {
            image_id,
            region: from,
        }) => (image, region) = (image_id, from),
    }
    let root = row.devices.first();
    Image {
        image_id: row.id.clone(),
        name: row.name.clone(),
        description: row.description.clone(),
        state: row.state.clone(),
        state_reason: (!row.failure.is_empty()).then(|| StateReason {
            code: "Server.InternalError".into(),
            message: row.failure.clone(),
        }),
        source_instance_id: instance.to_owned(),
        source_image_id: image.to_owned(),
        source_image_region: region.to_owned(),
        architecture: ARCHITECTURE.into(),
        creation_date: views::time(row.created_at),
        root_device_name: root.map_or(ROOT_DEVICE, |root| &root.device).to_owned(),
        block_device_mappings: devices::tell(state, row),
        tags: state.tags(Kind::Image, &row.id).map_or_else(Vec::new, tell_tags),
        owner_id: row.account_id.clone(),
        boot_mode: row.boot_mode.as_str().to_owned(),
        ena_support: row.ena_support,
        sriov_net_support: views::sriov(row.sriov_net_support).to_owned(),
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
            let snapshots = image
                .devices
                .iter()
                .filter_map(|device| device.snapshot_id.clone());
            let snapshots: Vec<String> = snapshots.collect();
            match image.state.as_str() {
                // No volume is based on it.
                PENDING => _ = tx.remove::<state::Image>(&id),
                _ => tx.put(state::Image {
                    state: DEREGISTERED.to_owned(),
                    tags: Tags::new(),
                    ..image
                }),
            }
            tx.audit(json!({ "image": id.as_str(), "with_snapshots": request.delete_associated_snapshots }));
            tx.event("image.deregistered", &id);
            let delete_snapshot_results = match request.delete_associated_snapshots {
                true => snapshots.iter().map(|id| delete_snapshot(tx, id)).collect(),
                false => Vec::new(),
            };
            Ok(DeregisterImageResponse {
                r#return: true,
                delete_snapshot_results,
            })
        })
        .await
}

/// A snapshot of the image goes with it, unless it is another's, or another image is made of it.
fn delete_snapshot(tx: &mut Tx<'_>, id: &str) -> DeleteSnapshotReturnCode {
    let deleted = super::snapshots::delete_in(tx, id);
    let return_code = match deleted.map_err(|error| error.code) {
        Ok(()) => "success",
        Err(ErrorCode::InvalidSnapshotInUse) => "skipped",
        Err(ErrorCode::AuthFailure) => "missing-permissions",
        Err(_) => "client-error",
    };
    DeleteSnapshotReturnCode {
        snapshot_id: id.to_owned(),
        return_code: return_code.to_owned(),
    }
}
