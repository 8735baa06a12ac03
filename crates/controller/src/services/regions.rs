//! Regions and availability zones. A zone is available while a host of it is connected.

use std::collections::BTreeSet;
use std::sync::Arc;

use hearth_api::ApiError;
use hearth_api::filter::Filters;
use hearth_api::v1::{
    AccountAttribute, AccountAttributeValue, AvailabilityZone, AvailabilityZoneMessage,
    DescribeAccountAttributesRequest, DescribeAccountAttributesResult, DescribeAvailabilityZonesRequest,
    DescribeAvailabilityZonesResponse, DescribeRegionsRequest, DescribeRegionsResponse, Region,
    regions_server,
};
use tonic::{Request, Response, Status};

use super::answer;
use crate::app::App;

const REGION_FILTERS: &[&str] = &["endpoint", "opt-in-status", "region-name"];
const ZONE_FILTERS: &[&str] = &[
    "message",
    "opt-in-status",
    "region-name",
    "state",
    "zone-id",
    "zone-name",
    "zone-type",
];
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
    let filters = Filters::new(&request.filters, REGION_FILTERS)?;
    let region = Region {
        region_name: app.config.region.clone(),
        endpoint: format!("unix:{}", app.config.socket.display()),
        opt_in_status: OPT_IN.into(),
    };
    for name in &request.region_names {
        if *name != region.region_name {
            let expected = format!("The only region is {}.", region.region_name);
            return Err(ApiError::invalid_value("RegionName", name, expected));
        }
    }
    let matches = filters.matches(&[], |name| {
        vec![
            match name {
                "endpoint" => &region.endpoint,
                "opt-in-status" => &region.opt_in_status,
                _ => &region.region_name,
            }
            .clone()
            .into(),
        ]
    });
    Ok(DescribeRegionsResponse {
        regions: if matches { vec![region] } else { Vec::new() },
    })
}

fn account_attributes(
    app: &App,
    request: &DescribeAccountAttributesRequest,
) -> Result<DescribeAccountAttributesResult, ApiError> {
    let state = app.state();
    let default_vpc = state.default_vpc(&app.account()).map_or("none", |vpc| &vpc.id);
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
    let filters = Filters::new(&request.filters, ZONE_FILTERS)?;
    for name in &request.zone_names {
        if !app.config.zones.contains(name) {
            let expected = format!("The zones are {}.", app.config.zones.join(", "));
            return Err(ApiError::invalid_value("ZoneName", name, expected));
        }
    }
    let state = app.state();
    let connected = app.sessions.connected();
    let live: BTreeSet<&str> = state
        .hosts()
        .filter(|host| connected.contains(&host.id))
        .map(|host| host.availability_zone.as_str())
        .collect();
    let zones = app.config.zones.iter().enumerate().map(|(n, zone)| {
        let available = live.contains(zone.as_str());
        AvailabilityZone {
            zone_name: zone.clone(),
            zone_id: format!("{}-az{}", app.config.region, n + 1),
            region_name: app.config.region.clone(),
            state: if available { "available" } else { "unavailable" }.into(),
            group_name: format!("{}-zg-1", app.config.region),
            network_border_group: app.config.region.clone(),
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
            && filters.matches(&[], |name| match name {
                "message" => zone.messages.iter().map(|m| m.message.clone().into()).collect(),
                "opt-in-status" => vec![zone.opt_in_status.clone().into()],
                "region-name" => vec![zone.region_name.clone().into()],
                "state" => vec![zone.state.clone().into()],
                "zone-id" => vec![zone.zone_id.clone().into()],
                "zone-type" => vec![zone.zone_type.clone().into()],
                _ => vec![zone.zone_name.clone().into()],
            })
    };
    Ok(DescribeAvailabilityZonesResponse {
        availability_zones: zones.filter(wanted).collect(),
    })
}
