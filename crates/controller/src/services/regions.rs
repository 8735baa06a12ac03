//! Regions and availability zones. A zone is available while a host of it is connected.

use std::collections::BTreeSet;
use std::sync::Arc;

use hearth_api::ApiError;
use hearth_api::filter::{Filters, Known};
use hearth_api::known;
use hearth_api::v1::{
    AccountAttribute, AccountAttributeValue, AvailabilityZone, AvailabilityZoneMessage,
    DescribeAccountAttributesRequest, DescribeAccountAttributesResult, DescribeAvailabilityZonesRequest,
    DescribeAvailabilityZonesResponse, DescribeRegionsRequest, DescribeRegionsResponse, Region,
    regions_server,
};
use tonic::{Request, Response, Status};

use super::answer;
use crate::app::App;
use crate::call::{Call, Endpoint};
use crate::state;
use hearth_api::zones;

pub(super) const REGION_FILTERS: Known<Region> = known! {
    "endpoint" => endpoint,
    "opt-in-status" => opt_in_status,
    "region-name" => region_name,
};
pub(super) const ZONE_FILTERS: Known<AvailabilityZone> = known! {
    "group-long-name" => none,
    "group-name" => group_name,
    "message" => messages.message,
    "opt-in-status" => opt_in_status,
    "parent-zone-id" => none,
    "parent-zone-name" => none,
    "region-name" => region_name,
    "state" => state,
    "zone-id" => zone_id,
    "zone-name" => zone_name,
    "zone-type" => zone_type,
};
const OPT_IN: &str = "opt-in-not-required";

pub(super) struct Regions(pub(super) Arc<App>);

#[tonic::async_trait]
impl regions_server::Regions for Regions {
    async fn describe_regions(
        &self,
        request: Request<DescribeRegionsRequest>,
    ) -> Result<Response<DescribeRegionsResponse>, Status> {
        answer(regions(&self.0, &request.into_inner()))
    }

    async fn describe_account_attributes(
        &self,
        request: Request<DescribeAccountAttributesRequest>,
    ) -> Result<Response<DescribeAccountAttributesResult>, Status> {
        answer(account_attributes(&self.0, &request.into_inner()))
    }

    async fn describe_availability_zones(
        &self,
        request: Request<DescribeAvailabilityZonesRequest>,
    ) -> Result<Response<DescribeAvailabilityZonesResponse>, Status> {
        answer(zones(&self.0, &request.into_inner()))
    }
}

fn regions(app: &App, request: &DescribeRegionsRequest) -> Result<DescribeRegionsResponse, ApiError> {
    let filters = Filters::new(&request.filters, &REGION_FILTERS)?;
    let state = app.state();
    for name in &request.region_names {
        if state.region(name).is_none() {
            let known: Vec<&str> = state
                .all()
                .map(|region: &state::Region| region.name.as_str())
                .collect();
            let expected = format!("The regions are {}.", known.join(", "));
            return Err(ApiError::invalid_value("RegionName", name, expected));
        }
    }
    let is_wanted =
        |row: &&state::Region| request.region_names.is_empty() || request.region_names.contains(&row.name);
    let regions = state.all::<state::Region>().filter(is_wanted).map(|row| Region {
        region_name: row.name.clone(),
        endpoint: endpoint(app),
        opt_in_status: OPT_IN.into(),
    });
    Ok(DescribeRegionsResponse {
        regions: regions.filter(|region| filters.matches(region)).collect(),
    })
}

/// Where the caller may call the cloud: where it has called it.
fn endpoint(app: &App) -> String {
    let called = Call::current().and_then(|call| call.endpoint.clone());
    called.map_or_else(
        || format!("unix:{}", app.config.socket.display()),
        |Endpoint(url)| url,
    )
}

fn account_attributes(
    app: &App,
    request: &DescribeAccountAttributesRequest,
) -> Result<DescribeAccountAttributesResult, ApiError> {
    let state = app.state();
    let default_vpc = state.default_vpc(&app.scope()).map_or("none", |vpc| &vpc.id);
    let all = [
        ("default-vpc", default_vpc.to_owned()),
        ("max-instances", app.config.instance_limit.to_string()),
        ("supported-platforms", "VPC".to_owned()),
        (
            "vpc-max-security-groups-per-interface",
            super::instances::MAX_GROUPS.to_string(),
        ),
    ];
    let names = &request.attribute_names;
    if let Some(unknown) = names
        .iter()
        .find(|name| all.iter().all(|(known, _)| known != name))
    {
        let known: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
        let expected = format!("Expecting one of {}.", known.join(", "));
        return Err(ApiError::invalid_value("AttributeName", unknown, expected));
    }
    let wanted = all
        .into_iter()
        .filter(|(name, _)| names.is_empty() || names.iter().any(|wanted| wanted == name));
    Ok(DescribeAccountAttributesResult {
        account_attributes: wanted
            .map(|(name, value)| AccountAttribute {
                attribute_name: name.to_owned(),
                attribute_values: vec![AccountAttributeValue {
                    attribute_value: value,
                }],
            })
            .collect(),
    })
}

fn zones(
    app: &App,
    request: &DescribeAvailabilityZonesRequest,
) -> Result<DescribeAvailabilityZonesResponse, ApiError> {
    let filters = Filters::new(&request.filters, &ZONE_FILTERS)?;
    let state = app.state();
    let region = app.region();
    let names = state.region(&region).map_or(&[][..], |region| &region.zones);
    for name in &request.zone_names {
        if !names.contains(name) {
            let expected = format!("The zones of {region} are {}.", names.join(", "));
            return Err(ApiError::invalid_value("ZoneName", name, expected));
        }
    }
    let connected = app.sessions.connected();
    let live: BTreeSet<&str> = state
        .hosts()
        .filter(|host| connected.contains(&host.id))
        .map(|host| host.availability_zone.as_str())
        .collect();
    let zones = names.iter().map(|zone| {
        let available = live.contains(zone.as_str());
        AvailabilityZone {
            zone_name: zone.clone(),
            zone_id: zones::id(zone),
            region_name: region.clone(),
            state: if available { "available" } else { "unavailable" }.into(),
            group_name: format!("{region}-zg-1"),
            network_border_group: region.clone(),
            zone_type: "availability-zone".into(),
            opt_in_status: OPT_IN.into(),
            messages: if available {
                Vec::new()
            } else {
                vec![AvailabilityZoneMessage {
                    message: "No host of this zone is connected.".into(),
                }]
            },
        }
    });
    let wanted = |zone: &AvailabilityZone| {
        (request.zone_names.is_empty() || request.zone_names.contains(&zone.zone_name))
            && filters.matches(zone)
    };
    Ok(DescribeAvailabilityZonesResponse {
        availability_zones: zones.filter(wanted).collect(),
    })
}
