//! AMIs.

use std::sync::Arc;

use hearth_api::filter::Filters;
use hearth_api::page::{paginate, refuse_page_of_ids};
use hearth_api::v1::{
    DeregisterImageRequest, DeregisterImageResponse, DescribeImagesRequest, DescribeImagesResponse, Image,
    RegisterImageRequest, RegisterImageResponse, image, images_server,
};
use hearth_api::{ApiError, Id, Kind};
use serde_json::json;
use tonic::{Request, Response, Status, Streaming};

use super::{Failure, answer, commit, input, refuse_dry_run};
use crate::app::App;
use crate::inspection::Inspections;
use crate::store::images::{self, AVAILABLE, ImageRow};
use crate::store::tags;
use crate::store::views::{self, ARCHITECTURE, ROOT_DEVICE};

mod boot_mode;
mod limits;
mod register;
mod upload;

use limits::Uploads;

const FILTERS: &[&str] = &[
    "architecture",
    "boot-mode",
    "description",
    "image-id",
    "name",
    "owner-id",
    "root-device-name",
    "state",
    "tag",
];

pub(super) struct Images {
    app: Arc<App>,
    uploads: Arc<Uploads>,
    inspections: Inspections,
}

impl Images {
    pub(super) fn new(app: Arc<App>) -> Self {
        Self {
            app,
            uploads: Arc::default(),
            inspections: Inspections::default(),
        }
    }
}

#[tonic::async_trait]
impl images_server::Images for Images {
    async fn register_image(
        &self,
        request: Request<Streaming<RegisterImageRequest>>,
    ) -> Result<Response<RegisterImageResponse>, Status> {
        answer(
            "RegisterImage",
            register::register(&self.app, &self.uploads, &self.inspections, request.into_inner()).await,
        )
    }

    async fn describe_images(
        &self,
        request: Request<DescribeImagesRequest>,
    ) -> Result<Response<DescribeImagesResponse>, Status> {
        answer("DescribeImages", describe(&self.app, &request.into_inner()).await)
    }

    async fn deregister_image(
        &self,
        request: Request<DeregisterImageRequest>,
    ) -> Result<Response<DeregisterImageResponse>, Status> {
        answer(
            "DeregisterImage",
            deregister(&self.app, &request.into_inner()).await,
        )
    }
}

async fn describe(app: &App, request: &DescribeImagesRequest) -> Result<DescribeImagesResponse, Failure> {
    refuse_page_of_ids(&request.image_ids, request.page.as_ref(), "imagesSet")?;
    let filters = Filters::new(&request.filters, FILTERS)?;
    let mut read = app.store.read().await?;
    let rows = images::available(&mut read).await?;
    let mut tags = tags::of_type(&mut read, Kind::Image.resource_type(), None).await?;
    drop(read);
    input::all_known(
        Kind::Image,
        &request.image_ids,
        rows.iter().map(|row| row.id.as_str()),
    )?;
    refuse_dry_run(request.dry_run)?;
    let told = rows
        .into_iter()
        .filter(|row| request.image_ids.is_empty() || request.image_ids.contains(&row.id))
        .map(|row| {
            let tags = tags.remove(&row.id).unwrap_or_default();
            Image {
                tags,
                ..tell(row, &app.cloud().owner_id)
            }
        })
        .filter(|image| {
            filters.matches(&image.tags, |name| {
                vec![
                    match name {
                        "architecture" => &image.architecture,
                        "boot-mode" => &image.boot_mode,
                        "description" => &image.description,
                        "name" => &image.name,
                        "owner-id" => &image.owner_id,
                        "root-device-name" => &image.root_device_name,
                        "state" => &image.state,
                        _ => &image.image_id,
                    }
                    .as_str()
                    .to_owned()
                    .into(),
                ]
            })
        });
    let (images, next_token) = paginate(told.collect(), request.page.as_ref(), |image: &Image| {
        image.image_id.clone()
    })?;
    Ok(DescribeImagesResponse { images, next_token })
}

fn tell(row: ImageRow, owner_id: &str) -> Image {
    Image {
        image_id: row.id,
        name: row.name,
        description: row.description,
        state: row.state,
        architecture: ARCHITECTURE.into(),
        creation_date: Some(views::timestamp(row.created_at)),
        root_device_name: ROOT_DEVICE.into(),
        size: row.size,
        block_device_mappings: vec![image::BlockDevice {
            device_name: ROOT_DEVICE.into(),
            volume_size: row.size.unsigned_abs().div_ceil(1 << 30).cast_signed(),
        }],
        tags: Vec::new(),
        owner_id: owner_id.to_owned(),
        kernel_path: row.kernel_path,
        boot_mode: row.boot_mode,
    }
}

/// Instances that were launched from it go on; the janitor removes the disk when the last of their volumes is gone.
async fn deregister(app: &App, request: &DeregisterImageRequest) -> Result<DeregisterImageResponse, Failure> {
    if request.image_id.is_empty() {
        return Err(ApiError::missing("ImageId").into());
    }
    let id = Id::parse(Kind::Image, &request.image_id)?;
    let mut tx = app.store.write().await?;
    match images::by_id(tx.connection(), &id).await? {
        Some(row) if row.state == AVAILABLE => {}
        _ => return Err(Kind::Image.not_found(&[&id]).into()),
    }
    images::deregister(tx.connection(), &id).await?;
    tags::remove_all(tx.connection(), &id).await?;
    tx.audit("DeregisterImage", &json!({ "image": id.as_ref() as &str }))
        .await?;
    tx.event("image.deregistered", &id).await?;
    commit(tx, request.dry_run).await?;
    Ok(DeregisterImageResponse {})
}
