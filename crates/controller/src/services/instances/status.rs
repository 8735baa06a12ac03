//! DescribeInstanceStatus: what is known of instances' hosts and of their virtual machines. Hearth does not look into guests.

use hearth_api::filter::{Filters, Known, no};
use hearth_api::known;
use hearth_api::page::{Page, paginate, refuse_page_of_ids};
use hearth_api::v1::{
    DescribeInstanceStatusRequest, DescribeInstanceStatusResult, InstanceStatus, InstanceStatusDetails,
    InstanceStatusSummary,
};
use hearth_api::{ApiError, InstanceState, Kind};

use crate::app::App;
use crate::services::input;
use crate::state::{Host, Instance, State};
use crate::views;
use hearth_api::zones;

pub(in crate::services) const FILTERS: Known<InstanceStatus> = known! {
    "application-status.status" => none,
    "attached-ebs-status.status" => none,
    "availability-zone" => availability_zone,
    "availability-zone-id" => availability_zone_id,
    "event.code" => none,
    "event.description" => none,
    "event.instance-event-id" => none,
    "event.not-after" => none,
    "event.not-before" => none,
    "event.not-before-deadline" => none,
    "instance-state-code" => instance_state.code,
    "instance-state-name" => instance_state.name,
    "instance-status.reachability" => instance_status.details.status,
    "instance-status.status" => instance_status.status,
    "operator.managed" => (no),
    "operator.principal" => none,
    "system-status.reachability" => system_status.details.status,
    "system-status.status" => system_status.status,
};

pub(super) fn describe(
    app: &App,
    request: DescribeInstanceStatusRequest,
) -> Result<DescribeInstanceStatusResult, ApiError> {
    let DescribeInstanceStatusRequest {
        instance_ids,
        filters,
        max_results,
        next_token: after,
        include_all_instances,
        ..
    } = request;
    let page = Page::new(max_results, &after);
    refuse_page_of_ids(&instance_ids, page, "instancesSet")?;
    let filters = Filters::new(&filters, &FILTERS)?;
    let state = app.state();
    input::all_known(Kind::Instance, &instance_ids, |id| {
        state.get::<Instance>(id).is_some()
    })?;
    let named = instance_ids.iter().filter_map(|id| state.get::<Instance>(id));
    let all = state.all::<Instance>().take_while(|_| instance_ids.is_empty());
    let tell = |row: &Instance| {
        if row.state != InstanceState::Running && !include_all_instances {
            return None;
        }
        let status = status(&state, row, app.sessions.is_connected(&row.host_id));
        filters.matches(&status).then_some(status)
    };
    let (instance_statuses, next_token) = paginate(named.chain(all), page, |row| row.id.clone(), tell)?;
    Ok(DescribeInstanceStatusResult {
        instance_statuses,
        next_token,
    })
}

fn status(state: &State, row: &Instance, connected: bool) -> InstanceStatus {
    let silent_since = state
        .get::<Host>(&row.host_id)
        .and_then(|host| host.silent_since)
        .filter(|_| !connected);
    let (status, reachability) = match (row.state, connected, silent_since) {
        (InstanceState::Stopped | InstanceState::Terminated, ..) => ("not-applicable", None),
        (_, false, Some(_)) => ("impaired", Some("failed")),
        (_, false, None) => ("insufficient-data", Some("insufficient-data")),
        (InstanceState::Pending, true, _) => ("initializing", Some("initializing")),
        (_, true, _) => ("ok", Some("passed")),
    };
    let summary = InstanceStatusSummary {
        details: reachability
            .map(|reachability| InstanceStatusDetails {
                impaired_since: silent_since.map(views::timestamp),
                name: "reachability".into(),
                status: reachability.into(),
            })
            .into_iter()
            .collect(),
        status: status.into(),
    };
    InstanceStatus {
        availability_zone: row.availability_zone.clone(),
        availability_zone_id: zones::id(&row.availability_zone),
        instance_id: row.id.clone(),
        instance_state: Some(row.state.into()),
        instance_status: Some(summary.clone()),
        system_status: Some(summary),
    }
}
