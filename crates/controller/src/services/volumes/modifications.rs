//! DescribeVolumesModifications: the last one of each volume.
//! <https://docs.aws.amazon.com/ebs/latest/userguide/monitoring-volume-modifications.html>

use hearth_api::filter::{Filters, Known, no};
use hearth_api::known;
use hearth_api::page::{Page, paginate, refuse_page_of_ids};
use hearth_api::v1::{
    DescribeVolumesModificationsRequest, DescribeVolumesModificationsResult, VolumeModification,
};
use hearth_api::{ApiError, ErrorCode};

use super::describe::{gib, named, signed};
use crate::app::App;
use crate::state::{ModificationState, Volume};
use crate::views;

pub(in crate::services) const FILTERS: Known<VolumeModification> = known! {
    "modification-state" => modification_state,
    "original-iops" => original_iops,
    "original-size" => original_size,
    "original-volume-type" => original_volume_type,
    "originalMultiAttachEnabled" => (no),
    "start-time" => start_time,
    "target-iops" => target_iops,
    "target-size" => target_size,
    "target-volume-type" => target_volume_type,
    "targetMultiAttachEnabled" => (no),
    "volume-id" => volume_id,
};

pub(super) async fn describe(
    app: &App,
    request: DescribeVolumesModificationsRequest,
) -> Result<DescribeVolumesModificationsResult, ApiError> {
    let ids = &request.volume_ids;
    let page = Page::new(request.max_results, &request.next_token);
    refuse_page_of_ids(ids, page, "volumeSet")?;
    let filters = Filters::new(&request.filters, &FILTERS)?;
    let state = app.state();
    let wanted = named(&state, ids)?;
    let never = wanted.iter().find(|row| row.modification.is_none());
    if let Some(row) = never.filter(|_| !ids.is_empty()) {
        return Err(ApiError::new(
            ErrorCode::InvalidVolumeModificationNotFound,
            format!("Modification for volume '{}' does not exist.", row.id),
        ));
    }
    let tell = |row: &Volume| tell(row).filter(|told| filters.matches(told));
    let (volumes_modifications, next_token) = paginate(wanted, page, |row| row.id.clone(), tell)?;
    Ok(DescribeVolumesModificationsResult {
        volumes_modifications,
        next_token,
    })
}

/// `None` for a volume that was never modified.
pub(super) fn tell(row: &Volume) -> Option<VolumeModification> {
    let modification = row.modification.as_ref()?;
    let (original, target) = (&modification.original, &modification.target);
    let (state, progress) = match modification.state {
        ModificationState::Modifying => ("modifying", 0),
        ModificationState::Completed => ("completed", 100),
        ModificationState::Failed => ("failed", 0),
    };
    Some(VolumeModification {
        volume_id: row.id.clone(),
        modification_state: state.into(),
        status_message: modification.message.clone(),
        target_size: gib(target.size_gib),
        target_iops: signed(target.told_iops()),
        target_volume_type: target.volume_type.as_str().into(),
        target_throughput: signed(target.throughput),
        target_multi_attach_enabled: false,
        original_size: gib(original.size_gib),
        original_iops: signed(original.told_iops()),
        original_volume_type: original.volume_type.as_str().into(),
        original_throughput: signed(original.throughput),
        original_multi_attach_enabled: false,
        progress,
        start_time: Some(views::timestamp(modification.started_at)),
        end_time: modification.ended_at.map(views::timestamp),
    })
}
