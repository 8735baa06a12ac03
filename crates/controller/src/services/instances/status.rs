//! DescribeInstanceStatus: what is known of instances' hosts and of their virtual machines. Hearth does not look into guests.

use std::borrow::Cow;

use hearth_api::filter::{Filters, Values};
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

const FILTERS: &[&str] = &[
    "availability-zone",
    "instance-state-code",
    "instance-state-name",
    "instance-status.reachability",
    "instance-status.status",
    "system-status.reachability",
    "system-status.status",
];

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
    let filters = Filters::new(&filters, FILTERS)?;
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
        filters
            .matches(&[], |name| values(&status, name))
            .then_some(status)
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
        instance_id: row.id.clone(),
        instance_state: Some(row.state.into()),
        instance_status: Some(summary.clone()),
        system_status: Some(summary),
    }
}

fn values<'s>(status: &'s InstanceStatus, name: &str) -> Values<'s> {
    let of = |summary: &'s Option<InstanceStatusSummary>| -> Values<'s> {
        let summary = summary.iter();
        summary.map(|s| Cow::Borrowed(s.status.as_str())).collect()
    };
    let reachability = |summary: &'s Option<InstanceStatusSummary>| -> Values<'s> {
        let details = summary.iter().flat_map(|s| &s.details);
        details.map(|d| Cow::Borrowed(d.status.as_str())).collect()
    };
    let state = status.instance_state.iter();
    match name {
        "availability-zone" => vec![Cow::Borrowed(status.availability_zone.as_str())],
        "instance-state-code" => state.map(|s| Cow::Owned(s.code.to_string())).collect(),
        "instance-state-name" => state.map(|s| Cow::Borrowed(s.name.as_str())).collect(),
        "instance-status.reachability" => reachability(&status.instance_status),
        "instance-status.status" => of(&status.instance_status),
        "system-status.reachability" => reachability(&status.system_status),
        "system-status.status" => of(&status.system_status),
        _ => Vec::new(),
    }
}
