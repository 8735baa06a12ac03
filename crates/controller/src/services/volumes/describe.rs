//! DescribeVolumes.

use hearth_api::filter::{Filters, Known, no};
use hearth_api::known;
use hearth_api::page::{Page, paginate, refuse_page_of_ids};
use hearth_api::v1::{self, DescribeVolumesRequest, DescribeVolumesResult, VolumeAttachment};
use hearth_api::{ApiError, Kind, zones};

use crate::app::App;
use crate::services::input;
use crate::state::noun::tell_tags;
use crate::state::{Image, Instance, State, Volume};
use crate::views;

pub(in crate::services) const FILTERS: Known<v1::Volume> = known! {
    tags: |item| &item.tags;
    "attachment.attach-time" => attachments.attach_time,
    "attachment.delete-on-termination" => attachments.delete_on_termination,
    "attachment.device" => attachments.device,
    "attachment.instance-id" => attachments.instance_id,
    "attachment.status" => attachments.state,
    "availability-zone" => availability_zone,
    "availability-zone-id" => availability_zone_id,
    "create-time" => create_time,
    "encrypted" => encrypted,
    "fast-restored" => (no),
    "multi-attach-enabled" => multi_attach_enabled,
    "operator.managed" => (no),
    "operator.principal" => none,
    "size" => size,
    "snapshot-id" => snapshot_id,
    "status" => state,
    "volume-id" => volume_id,
    "volume-type" => volume_type,
};

pub(super) async fn describe(
    app: &App,
    request: DescribeVolumesRequest,
) -> Result<DescribeVolumesResult, ApiError> {
    let ids = &request.volume_ids;
    let page = Page::new(request.max_results, &request.next_token);
    refuse_page_of_ids(ids, page, "volumeSet")?;
    let filters = Filters::new(&request.filters, &FILTERS)?;
    let state = app.state();
    let wanted = named(&state, ids)?;
    let tell = |row: &Volume| {
        let volume = tell(&state, row);
        filters.matches(&volume).then_some(volume)
    };
    let (volumes, next_token) = paginate(wanted, page, |row| row.id.clone(), tell)?;
    Ok(DescribeVolumesResult { volumes, next_token })
}

/// The volumes with some ids, or all, in the order of their ids.
///
/// # Errors
/// `InvalidVolumeID.Malformed`, `InvalidVolume.NotFound`.
pub(super) fn named<'s>(state: &'s State, ids: &[String]) -> Result<Vec<&'s Volume>, ApiError> {
    input::all_known(Kind::Volume, ids, |id| state.get::<Volume>(id).is_some())?;
    if ids.is_empty() {
        return Ok(state.all::<Volume>().collect());
    }
    let mut wanted: Vec<&Volume> = ids.iter().filter_map(|id| state.get::<Volume>(id)).collect();
    wanted.sort_by(|one, other| one.id.cmp(&other.id));
    wanted.dedup_by(|one, other| one.id == other.id);
    Ok(wanted)
}

pub(super) fn tell(state: &State, row: &Volume) -> v1::Volume {
    let zone = state.zone_of(row);
    let status = match (row.deleting, &row.attachment) {
        (true, _) => "deleting",
        (false, Some(_)) => "in-use",
        (false, None) => "available",
    };
    v1::Volume {
        volume_id: row.id.clone(),
        size: gib(row.told_gib()),
        availability_zone_id: zones::id(zone),
        availability_zone: zone.to_owned(),
        state: status.into(),
        create_time: Some(views::timestamp(row.created_at)),
        attachments: attachment(state, row).into_iter().collect(),
        tags: tell_tags(&row.tags),
        volume_type: row.spec.volume_type.as_str().into(),
        encrypted: row.encryption.is_some(),
        kms_key_id: views::kms_key(row.encryption.as_ref(), &row.region),
        iops: signed(row.spec.told_iops()),
        throughput: signed(row.spec.throughput),
        multi_attach_enabled: false,
        snapshot_id: snapshot_id(state, row).unwrap_or_default().to_owned(),
    }
}

/// What it was made from: of a root volume, the snapshot of its image.
fn snapshot_id<'s>(state: &'s State, row: &'s Volume) -> Option<&'s str> {
    let of_image = || {
        let image = state.of_anybody::<Image>(row.image_id.as_deref()?)?;
        image.devices.first()?.snapshot_id.as_deref()
    };
    row.snapshot_id.as_deref().or_else(of_image)
}

/// The attachment of a volume, if it has one.
pub(super) fn attachment(state: &State, row: &Volume) -> Option<VolumeAttachment> {
    let attachment = row.attachment.as_ref()?;
    let instance = state.get::<Instance>(&attachment.instance_id)?;
    Some(VolumeAttachment {
        volume_id: row.id.clone(),
        instance_id: instance.id.clone(),
        device: attachment.device.clone(),
        state: views::volume_attachment_status(attachment, instance.state).into(),
        delete_on_termination: attachment.delete_on_termination,
        attach_time: Some(views::timestamp(attachment.attached_at)),
    })
}

pub(in crate::services) fn gib(gib: u64) -> i32 {
    i32::try_from(gib).unwrap_or(i32::MAX)
}

/// 0 where there is none.
pub(in crate::services) fn signed(number: Option<u32>) -> i32 {
    i32::try_from(number.unwrap_or(0)).unwrap_or(i32::MAX)
}
