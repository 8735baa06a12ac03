//! DescribeInstances: filters meet instances, pages count reservations.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use hearth_api::filter::{Filters, Values};
use hearth_api::page::{Page, paginate, refuse_page_of_ids};
use hearth_api::v1::{DescribeInstancesRequest, DescribeInstancesResponse, Instance, Reservation};

use hearth_api::{ApiError, Kind};

use crate::app::App;
use crate::services::{input, placement};
use crate::state::{self, Index, State, key};
use crate::views;

const FILTERS: &[&str] = &[
    "architecture",
    "block-device-mapping.device-name",
    "block-device-mapping.volume-id",
    "boot-mode",
    "client-token",
    "current-instance-boot-mode",
    "group-id",
    "group-name",
    "image-id",
    "instance-id",
    "instance-state-code",
    "instance-state-name",
    "instance-type",
    "instance.group-id",
    "instance.group-name",
    "ip-address",
    "key-name",
    "launch-index",
    "maintenance-options.auto-recovery",
    "metadata-options.http-endpoint",
    "metadata-options.http-tokens",
    "metadata-options.instance-metadata-tags",
    "network-interface.addresses.private-ip-address",
    "network-interface.mac-address",
    "network-interface.network-interface-id",
    "network-interface.subnet-id",
    "network-interface.vpc-id",
    "owner-id",
    "private-dns-name",
    "private-ip-address",
    "reservation-id",
    "root-device-name",
    "state-reason-code",
    "subnet-id",
    "tag",
    "vpc-id",
];

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
    let known = [FILTERS, placement::FILTERS].concat();
    let filters = Filters::new(&filters, &known)?;
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
        let mut instances = views::reservation(&state, &row.id, &app.cloud);
        instances.retain(|instance| {
            is_candidate(&instance.instance_id)
                && filters.matches(&instance.tags, |name| values(instance, row, name))
        });
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
    filters: &Filters<'_>,
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

fn values<'i>(instance: &'i Instance, reservation: &'i state::Reservation, name: &str) -> Values<'i> {
    let text = |text: &'i str| -> Values<'i> {
        if text.is_empty() {
            Vec::new()
        } else {
            vec![Cow::Borrowed(text)]
        }
    };
    let state = instance.state.as_ref();
    let metadata = instance.metadata_options.as_ref();
    let interfaces = || instance.network_interfaces.iter();
    let devices = || instance.block_device_mappings.iter();
    match name {
        "architecture" => text(&instance.architecture),
        "boot-mode" => text(&instance.boot_mode),
        "current-instance-boot-mode" => text(&instance.current_instance_boot_mode),
        "block-device-mapping.device-name" => devices().map(|d| d.device_name.as_str().into()).collect(),
        "block-device-mapping.volume-id" => devices()
            .filter_map(|d| d.ebs.as_ref())
            .map(|ebs| ebs.volume_id.as_str().into())
            .collect(),
        "client-token" => text(&instance.client_token),
        "group-id" | "instance.group-id" => instance
            .security_groups
            .iter()
            .map(|g| g.group_id.as_str().into())
            .collect(),
        "group-name" | "instance.group-name" => instance
            .security_groups
            .iter()
            .map(|g| g.group_name.as_str().into())
            .collect(),
        "image-id" => text(&instance.image_id),
        "instance-id" => text(&instance.instance_id),
        "instance-state-code" => state.map(|s| s.code.to_string().into()).into_iter().collect(),
        "instance-state-name" => text(state.map_or("", |s| &s.name)),
        "instance-type" => text(&instance.instance_type),
        "ip-address" => text(&instance.public_ip_address),
        "key-name" => text(&instance.key_name),
        "launch-index" => vec![instance.ami_launch_index.to_string().into()],
        "maintenance-options.auto-recovery" => text(
            instance
                .maintenance_options
                .as_ref()
                .map_or("", |m| &m.auto_recovery),
        ),
        "metadata-options.http-endpoint" => text(metadata.map_or("", |m| &m.http_endpoint)),
        "metadata-options.instance-metadata-tags" => text(metadata.map_or("", |m| &m.instance_metadata_tags)),
        "metadata-options.http-tokens" => text(metadata.map_or("", |m| &m.http_tokens)),
        "network-interface.addresses.private-ip-address" => interfaces()
            .map(|n| n.private_ip_address.as_str().into())
            .collect(),
        "network-interface.mac-address" => interfaces().map(|n| n.mac_address.as_str().into()).collect(),
        "network-interface.network-interface-id" => interfaces()
            .map(|n| n.network_interface_id.as_str().into())
            .collect(),
        "network-interface.subnet-id" | "subnet-id" => text(&instance.subnet_id),
        "network-interface.vpc-id" | "vpc-id" => text(&instance.vpc_id),
        "owner-id" => text(&reservation.account_id),
        "private-dns-name" => text(&instance.private_dns_name),
        "private-ip-address" => text(&instance.private_ip_address),
        "reservation-id" => text(&reservation.id),
        "root-device-name" => text(&instance.root_device_name),
        "state-reason-code" => text(instance.state_reason.as_ref().map_or("", |r| &r.code)),
        _ => match &instance.placement {
            Some(placement) => placement::values(placement, name),
            None => Vec::new(),
        },
    }
}
