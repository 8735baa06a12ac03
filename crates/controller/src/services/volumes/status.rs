//! DescribeVolumeStatus: what the hosts of volumes say, or keep silent about.
//! <https://docs.aws.amazon.com/ebs/latest/userguide/monitoring-volume-checks.html>

use hearth_api::filter::{Filters, Known};
use hearth_api::known;
use hearth_api::page::{Page, paginate, refuse_page_of_ids};
use hearth_api::v1::{
    DescribeVolumeStatusRequest, DescribeVolumeStatusResult, VolumeStatusAttachmentStatus,
    VolumeStatusDetails, VolumeStatusEvent, VolumeStatusInfo, VolumeStatusItem,
};
use hearth_api::{ApiError, zones};

use super::describe::named;
use crate::app::App;
use crate::state::{Host, Stage, State, Volume};
use crate::views;

const IO_ENABLED: &str = "io-enabled";
const IO_PERFORMANCE: &str = "io-performance";
const NOT_APPLICABLE: &str = "not-applicable";

pub(in crate::services) const FILTERS: Known<VolumeStatusItem> = known! {
    "action.code" => actions.code,
    "action.description" => actions.description,
    "action.event-id" => actions.event_id,
    "attachment-status.instance-id" => attachment_statuses.instance_id,
    "attachment-status.io-performance" => attachment_statuses.io_performance,
    "availability-zone" => availability_zone,
    "event.description" => events.description,
    "event.event-id" => events.event_id,
    "event.event-type" => events.event_type,
    "event.not-after" => none,
    "event.not-before" => events.not_before,
    "volume-status.details-name" => volume_status.details.name,
    "volume-status.details-status" => volume_status.details.status,
    "volume-status.status" => volume_status.status,
};

pub(super) async fn describe(
    app: &App,
    request: DescribeVolumeStatusRequest,
) -> Result<DescribeVolumeStatusResult, ApiError> {
    let ids = &request.volume_ids;
    let page = Page::new(request.max_results, &request.next_token);
    refuse_page_of_ids(ids, page, "volumeSet")?;
    let filters = Filters::new(&request.filters, &FILTERS)?;
    let state = app.state();
    let tell = |row: &Volume| {
        // A volume without a host waits for none.
        let connected = row
            .host_id
            .as_ref()
            .is_none_or(|host| app.sessions.is_connected(host));
        let status = tell(&state, row, connected);
        filters.matches(&status).then_some(status)
    };
    let (volume_statuses, next_token) = paginate(named(&state, ids)?, page, |row| row.id.clone(), tell)?;
    Ok(DescribeVolumeStatusResult {
        volume_statuses,
        next_token,
    })
}

fn tell(state: &State, row: &Volume, connected: bool) -> VolumeStatusItem {
    let host = row.host_id.as_ref().and_then(|id| state.get::<Host>(id));
    let is_lost = !connected && host.is_some_and(|host| host.silent_since.is_some());
    let trouble = trouble(row);
    let (status, io_enabled) = match (connected, is_lost, trouble.is_none()) {
        (_, true, _) | (_, _, false) => ("impaired", "failed"),
        (false, ..) => ("insufficient-data", "insufficient-data"),
        (true, ..) => ("ok", "passed"),
    };
    let detail = |name: &str, status: &str| VolumeStatusDetails {
        name: name.to_owned(),
        status: status.to_owned(),
    };
    let attached = row.instance_id().map(|instance_id| VolumeStatusAttachmentStatus {
        instance_id: instance_id.to_owned(),
        io_performance: NOT_APPLICABLE.to_owned(),
    });
    let zone = state.zone_of(row);
    VolumeStatusItem {
        volume_id: row.id.clone(),
        availability_zone: zone.to_owned(),
        availability_zone_id: zones::id(zone),
        volume_status: Some(VolumeStatusInfo {
            status: status.to_owned(),
            details: vec![
                detail(IO_ENABLED, io_enabled),
                detail(IO_PERFORMANCE, NOT_APPLICABLE),
            ],
        }),
        actions: Vec::new(),
        events: trouble.into_iter().chain(moving(state, row)).collect(),
        attachment_statuses: attached.into_iter().collect(),
    }
}

/// That it moves is no trouble.
fn moving(state: &State, row: &Volume) -> Option<VolumeStatusEvent> {
    let of = state.storing(&row.id)?;
    let Stage::Storing { to, percent, .. } = &of.stage else {
        return None;
    };
    Some(VolumeStatusEvent {
        description: format!(
            "The volume moves from the host {} to {to}: {percent} % of what has changed in it is stored.",
            of.from
        ),
        event_id: row.id.replacen("vol-", "evol-", 1),
        event_type: IO_ENABLED.to_owned(),
        instance_id: row.instance_id().unwrap_or_default().to_owned(),
        not_before: row
            .attachment
            .as_ref()
            .map(|a| views::timestamp(a.progress_since)),
    })
}

/// What its host cannot do of what was asked for.
fn trouble(row: &Volume) -> Option<VolumeStatusEvent> {
    let attachment = row.attachment.as_ref().filter(|a| !a.trouble.is_empty())?;
    Some(VolumeStatusEvent {
        description: attachment.trouble.clone(),
        // An attachment has one.
        event_id: row.id.replacen("vol-", "evol-", 1),
        event_type: IO_ENABLED.to_owned(),
        instance_id: attachment.instance_id.clone(),
        not_before: Some(views::timestamp(attachment.progress_since)),
    })
}
