//! Disk images of AMIs: uploads, and what the disks hold. EC2 has no such calls.

use std::sync::Arc;

use hearth_api::v1::{
    DescribeImageDisksRequest, DescribeImageDisksResponse, GetImageUploadRequest, GetImageUploadResponse,
    ImageDisk, UploadImageRequest, UploadImageResponse, image_disks_server,
};
use hearth_api::{ApiError, Kind};
use tonic::{Request, Response, Status, Streaming};

use super::{answer, input};
use crate::app::App;
use crate::inspection::Inspections;
use crate::state::{AVAILABLE, Image};

pub(super) mod boot_mode;
pub(super) mod limits;
pub(super) mod look;
pub(crate) mod partial;
mod unpacked;
mod upload;
mod upload_image;

use limits::Uploads;
use partial::Taken;

pub(super) struct ImageDisks(pub(super) Arc<App>);

/// What bounds how many disks become images at the same time.
#[derive(Debug, Default)]
pub struct Imports {
    pub(super) uploads: Arc<Uploads>,
    pub(super) partial: Arc<Taken>,
    pub(super) inspections: Inspections,
}

#[tonic::async_trait]
impl image_disks_server::ImageDisks for ImageDisks {
    async fn upload_image(
        &self,
        request: Request<Streaming<UploadImageRequest>>,
    ) -> Result<Response<UploadImageResponse>, Status> {
        let parts = request.into_inner();
        answer(upload_image::upload_image(&self.0, parts).await)
    }

    async fn get_image_upload(
        &self,
        request: Request<GetImageUploadRequest>,
    ) -> Result<Response<GetImageUploadResponse>, Status> {
        answer(partial::get(&self.0, request.into_inner()).await)
    }

    async fn describe_image_disks(
        &self,
        request: Request<DescribeImageDisksRequest>,
    ) -> Result<Response<DescribeImageDisksResponse>, Status> {
        answer(describe(&self.0, &request.into_inner()))
    }
}

fn describe(app: &App, request: &DescribeImageDisksRequest) -> Result<DescribeImageDisksResponse, ApiError> {
    let state = app.state();
    input::all_known(Kind::Image, &request.image_ids, |id| {
        state.get::<Image>(id).is_some_and(Image::is_available)
    })?;
    let wanted = state
        .by(&Image::BY_STATE, AVAILABLE)
        .filter(|row| request.image_ids.is_empty() || request.image_ids.contains(&row.id));
    let disk = |row: &Image| ImageDisk {
        image_id: row.id.clone(),
        size: row.size.cast_signed(),
        kernel_path: row.kernel_path.clone(),
    };
    Ok(DescribeImageDisksResponse {
        image_disks: wanted.map(disk).collect(),
    })
}
