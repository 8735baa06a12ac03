//! What EC2 sells and Hearth gives to all: processor time without credits, and no detailed monitoring.

use hearth_api::filter::Filters;
use hearth_api::page::{Page, paginate, refuse_page_of_ids};
use hearth_api::v1::{
    DescribeInstanceCreditSpecificationsRequest, DescribeInstanceCreditSpecificationsResult,
    InstanceCreditSpecification, InstanceMonitoring, Monitoring, UnmonitorInstancesRequest,
    UnmonitorInstancesResult,
};
use hearth_api::{ApiError, Kind};

use super::plan;
use crate::app::App;
use crate::catalog::instance_types;
use crate::services::input;
use crate::state::Instance;

/// Of instances with burstable performance; named ones of other types are left out, as in EC2.
pub(super) fn credits(
    app: &App,
    request: &DescribeInstanceCreditSpecificationsRequest,
) -> Result<DescribeInstanceCreditSpecificationsResult, ApiError> {
    let ids = &request.instance_ids;
    let page = Page::new(request.max_results, &request.next_token);
    refuse_page_of_ids(ids, page, "instanceIds")?;
    let filters = Filters::new(&request.filters, &["instance-id"])?;
    let state = app.state();
    input::all_known(Kind::Instance, ids, |id| state.get::<Instance>(id).is_some())?;
    let wanted = state
        .all::<Instance>()
        .filter(|row| ids.is_empty() || ids.contains(&row.id));
    let tell = |row: &Instance| {
        let is_burstable = instance_types::find(&row.instance_type).is_some_and(|kind| kind.burstable);
        let passes = is_burstable && filters.matches(&[], |_| vec![row.id.as_str().into()]);
        passes.then(|| InstanceCreditSpecification {
            instance_id: row.id.clone(),
            cpu_credits: plan::CREDITS.into(),
        })
    };
    let (instance_credit_specifications, next_token) = paginate(wanted, page, |row| row.id.clone(), tell)?;
    Ok(DescribeInstanceCreditSpecificationsResult {
        instance_credit_specifications,
        next_token,
    })
}

pub(super) fn unmonitor(
    app: &App,
    request: &UnmonitorInstancesRequest,
) -> Result<UnmonitorInstancesResult, ApiError> {
    let ids = input::ids(Kind::Instance, &request.instance_ids, "InstanceId")?;
    let state = app.state();
    input::all_known(Kind::Instance, &ids, |id| state.get::<Instance>(id).is_some())?;
    let monitoring = |instance_id| InstanceMonitoring {
        instance_id,
        monitoring: Some(Monitoring {
            state: "disabled".into(),
        }),
    };
    Ok(UnmonitorInstancesResult {
        instance_monitorings: ids.into_iter().map(monitoring).collect(),
    })
}
