//! DescribeVolumes, DeleteVolume. Volumes are made by launches; those that shall outlive their instance are deleted here.

use std::sync::Arc;

use hearth_api::filter::{Filters, Values};
use hearth_api::page::{Page, paginate, refuse_page_of_ids};
use hearth_api::v1::{
    DeleteVolumeRequest, DeleteVolumeResult, DescribeVolumesRequest, DescribeVolumesResult, Volume,
    VolumeAttachment, volumes_server,
};
use hearth_api::{ApiError, ErrorCode, Kind};
use serde_json::json;
use tonic::{Request, Response, Status};

use super::{answer, input};
use crate::app::App;
use crate::state::noun::tell_tags;
use crate::state::{self, Host, Instance, State};
use crate::views::{self, VOLUME_TYPE};

const FILTERS: &[&str] = &[
    "attachment.delete-on-termination",
    "attachment.device",
    "attachment.instance-id",
    "attachment.status",
    "availability-zone",
    "size",
    "status",
    "tag",
    "volume-id",
    "volume-type",
];
pub(super) struct Volumes(pub(super) Arc<App>);

#[tonic::async_trait]
impl volumes_server::Volumes for Volumes {
    async fn describe_volumes(
        &self,
        request: Request<DescribeVolumesRequest>,
    ) -> Result<Response<DescribeVolumesResult>, Status> {
        answer(describe(&self.0, &request.into_inner()))
    }

    async fn delete_volume(
        &self,
        request: Request<DeleteVolumeRequest>,
    ) -> Result<Response<DeleteVolumeResult>, Status> {
        answer(delete(&self.0, request.into_inner()).await)
    }
}

fn describe(app: &App, request: &DescribeVolumesRequest) -> Result<DescribeVolumesResult, ApiError> {
    let ids = &request.volume_ids;
    let page = Page::new(request.max_results, &request.next_token);
    refuse_page_of_ids(ids, page, "volumeSet")?;
    let filters = Filters::new(&request.filters, FILTERS)?;
    let state = app.state();
    input::all_known(Kind::Volume, ids, |id| state.get::<state::Volume>(id).is_some())?;
    let wanted = state
        .all::<state::Volume>()
        .filter(|row| ids.is_empty() || ids.contains(&row.id));
    let tell = |row: &state::Volume| {
        let volume = tell(&state, row);
        filters
            .matches(&volume.tags, |name| values(&volume, name))
            .then_some(volume)
    };
    let (volumes, next_token) = paginate(wanted, page, |row| row.id.clone(), tell)?;
    Ok(DescribeVolumesResult { volumes, next_token })
}

fn tell(state: &State, row: &state::Volume) -> Volume {
    let attached = |attachment: &state::Attachment| {
        let instance = state.get::<Instance>(&attachment.instance_id)?;
        Some(VolumeAttachment {
            volume_id: row.id.clone(),
            instance_id: instance.id.clone(),
            device: attachment.device.clone(),
            state: views::attachment_status(instance.state).into(),
            delete_on_termination: attachment.delete_on_termination,
            attach_time: Some(views::timestamp(attachment.attached_at)),
        })
    };
    let host = state.get::<Host>(&row.host_id);
    let status = match (row.deleting, &row.attachment) {
        (true, _) => "deleting",
        (false, Some(_)) => "in-use",
        (false, None) => "available",
    };
    Volume {
        volume_id: row.id.clone(),
        size: i32::try_from(row.size_gib).unwrap_or(i32::MAX),
        availability_zone: host
            .map(|host| host.availability_zone.clone())
            .unwrap_or_default(),
        state: status.into(),
        create_time: Some(views::timestamp(row.created_at)),
        attachments: row.attachment.as_ref().and_then(attached).into_iter().collect(),
        tags: tell_tags(&row.tags),
        volume_type: VOLUME_TYPE.into(),
    }
}

fn values<'v>(volume: &'v Volume, name: &str) -> Values<'v> {
    let value = match name {
        "availability-zone" => volume.availability_zone.as_str().into(),
        "size" => volume.size.to_string().into(),
        "status" => volume.state.as_str().into(),
        "volume-id" => volume.volume_id.as_str().into(),
        "volume-type" => volume.volume_type.as_str().into(),
        _ => {
            let attachments = volume.attachments.iter();
            return attachments
                .map(|attachment| match name {
                    "attachment.delete-on-termination" => attachment.delete_on_termination.to_string().into(),
                    "attachment.device" => attachment.device.as_str().into(),
                    "attachment.instance-id" => attachment.instance_id.as_str().into(),
                    _ => attachment.state.as_str().into(),
                })
                .collect();
        }
    };
    vec![value]
}

/// The volume goes when its host has erased it. Deleting it again is no error.
async fn delete(app: &App, request: DeleteVolumeRequest) -> Result<DeleteVolumeResult, ApiError> {
    let id = input::id(Kind::Volume, &request.volume_id, "VolumeId")?.to_string();
    app.store
        .transact(move |tx| {
            let Some(row) = tx.get::<state::Volume>(&id) else {
                return Err(Kind::Volume.not_found(&[&id]));
            };
            if let Some(instance) = row.instance_id() {
                return Err(ApiError::new(
                    ErrorCode::VolumeInUse,
                    format!("Volume {id} is currently attached to {instance}: terminate the instance first."),
                ));
            }
            if !row.deleting {
                tx.update::<state::Volume>(&id, |row| row.deleting = true);
                tx.event("volume.deleting", &id);
            }
            tx.audit(json!({ "volume": id }));
            Ok(DeleteVolumeResult {})
        })
        .await
}
