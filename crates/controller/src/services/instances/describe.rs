//! DescribeInstances: filters meet instances, pages count reservations.

use std::collections::{BTreeMap, BTreeSet};

use hearth_api::filter::Filters;
use hearth_api::page::{Page, paginate, refuse_page_of_ids};
use hearth_api::v1::{DescribeInstancesRequest, DescribeInstancesResponse, Instance, Reservation};
use hearth_api::{ApiError, Kind};

use super::filters::{FILTERS, Found};
use crate::app::App;
use crate::services::input;
use crate::state::noun::tell_tags;
use crate::state::{self, Index, State, key};
use crate::views;

pub(super) fn describe(
    app: &App,
    request: DescribeInstancesRequest,
) -> Result<DescribeInstancesResponse, ApiError> {
    let DescribeInstancesRequest {
        instance_ids,
        filters,
        max_results,
        next_token: after,
        ..
    } = request;
    let page = Page::new(max_results, &after);
    refuse_page_of_ids(&instance_ids, page, "instancesSet")?;
    let filters = Filters::new(&filters, &FILTERS)?;
    let state = app.state();
    input::all_known(Kind::Instance, &instance_ids, |id| {
        state.get::<state::Instance>(id).is_some()
    })?;
    let candidates = candidates(&state, &instance_ids, &filters);
    let is_candidate = |id: &str| candidates.as_ref().is_none_or(|ids| ids.contains_key(id));
    // Those of the candidates, each once, or all.
    let reservations: BTreeSet<&str> = candidates.iter().flat_map(BTreeMap::values).copied().collect();
    let named = reservations
        .into_iter()
        .filter_map(|id| state.get::<state::Reservation>(id));
    let all = state
        .all::<state::Reservation>()
        .take_while(|_| candidates.is_none());
    let tell = |row: &state::Reservation| {
        let instances = views::reservation(&state, &row.id).into_iter();
        let wanted = instances.filter(|instance| is_candidate(&instance.instance_id));
        let found = wanted.map(|instance| Found {
            interface_tags: if filters.is_empty() {
                Vec::new()
            } else {
                let interface = state.interface_of(&instance.instance_id);
                interface.map_or_else(Vec::new, |row| tell_tags(&row.tags))
            },
            instance: [instance],
            owner_id: row.account_id.clone(),
            reservation_id: row.id.clone(),
        });
        let passing = found.filter(|found| filters.matches(found));
        let instances: Vec<Instance> = passing.flat_map(|found| found.instance).collect();
        (!instances.is_empty()).then(|| Reservation {
            reservation_id: row.id.clone(),
            owner_id: row.account_id.clone(),
            instances,
            groups: Vec::new(),
        })
    };
    let (reservations, next_token) = paginate(named.chain(all), page, |row| row.id.clone(), tell)?;
    Ok(DescribeInstancesResponse {
        reservations,
        next_token,
    })
}

/// Instances and their reservations, among which all are that can pass: those that were named, or those that an index has
/// under the values of a filter. `None`: all.
fn candidates<'s>(
    state: &'s State,
    ids: &[String],
    filters: &Filters<'_, Found>,
) -> Option<BTreeMap<&'s str, &'s str>> {
    let pair = |row: &'s state::Instance| (row.id.as_str(), row.reservation_id.as_str());
    if !ids.is_empty() {
        return Some(ids.iter().filter_map(|id| state.get(id)).map(pair).collect());
    }
    let by = |index: &Index<state::Instance>, keys: Vec<String>| {
        let mut found = BTreeMap::new();
        for key in &keys {
            found.extend(
                state
                    .from(index, key)
                    .take_while(|(has, _)| has == key)
                    .map(|(_, row)| pair(row)),
            );
        }
        found
    };
    if let Some((tag, values)) = filters.literal_tag() {
        let keys = values.iter().map(|value| key(&[tag, value])).collect();
        return Some(by(&state::Instance::BY_TAG, keys));
    }
    let states = filters.literals("instance-state-name")?;
    Some(by(&state::Instance::BY_STATE, states))
}
