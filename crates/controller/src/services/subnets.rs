//! DescribeSubnets.

use std::borrow::Cow;
use std::sync::Arc;

use hearth_api::filter::Filters;
use hearth_api::page::{Page, paginate, refuse_page_of_ids};
use hearth_api::v1::{DescribeSubnetsRequest, DescribeSubnetsResponse, Subnet, subnets_server};
use hearth_api::{ApiError, Kind};
use tonic::{Request, Response, Status};

use super::{answer, input};
use crate::addresses;
use crate::app::App;
use crate::state::noun::tell_tags;
use crate::state::{self, State};

const FILTERS: &[&str] = &[
    "availability-zone",
    "availabilityZone",
    "available-ip-address-count",
    "availableIpAddressCount",
    "cidr",
    "cidr-block",
    "cidrBlock",
    "default-for-az",
    "defaultForAz",
    "map-public-ip-on-launch",
    "owner-id",
    "state",
    "subnet-id",
    "tag",
    "vpc-id",
];

pub(super) struct Subnets(pub(super) Arc<App>);

#[tonic::async_trait]
impl subnets_server::Subnets for Subnets {
    async fn describe_subnets(
        &self,
        request: Request<DescribeSubnetsRequest>,
    ) -> Result<Response<DescribeSubnetsResponse>, Status> {
        answer(describe(&self.0, &request.into_inner()))
    }
}

fn describe(app: &App, request: &DescribeSubnetsRequest) -> Result<DescribeSubnetsResponse, ApiError> {
    let page = Page::new(request.max_results, &request.next_token);
    refuse_page_of_ids(&request.subnet_ids, page, "subnetSet")?;
    let filters = Filters::new(&request.filters, FILTERS)?;
    let state = app.state();
    input::all_known(Kind::Subnet, &request.subnet_ids, |id| {
        state.get::<state::Subnet>(id).is_some()
    })?;
    let wanted = state
        .all::<state::Subnet>()
        .filter(|subnet| request.subnet_ids.is_empty() || request.subnet_ids.contains(&subnet.id));
    let tell = |row: &state::Subnet| {
        let subnet = tell(&state, row);
        filters
            .matches(&subnet.tags, |name| vec![value(&subnet, name)])
            .then_some(subnet)
    };
    let (subnets, next_token) = paginate(wanted, page, |row| row.id.clone(), tell)?;
    Ok(DescribeSubnetsResponse { subnets, next_token })
}

fn tell(state: &State, row: &state::Subnet) -> Subnet {
    Subnet {
        subnet_id: row.id.clone(),
        vpc_id: row.vpc_id.clone(),
        cidr_block: row.cidr.to_string(),
        availability_zone: row.availability_zone.clone(),
        state: "available".into(),
        default_for_az: row.default_for_az,
        map_public_ip_on_launch: row.map_public_ip_on_launch,
        available_ip_address_count: i32::try_from(addresses::free_count(state, row)).unwrap_or(i32::MAX),
        owner_id: row.account_id.clone(),
        tags: tell_tags(&row.tags),
    }
}

fn value<'s>(subnet: &'s Subnet, name: &str) -> Cow<'s, str> {
    match name {
        "availability-zone" | "availabilityZone" => subnet.availability_zone.as_str().into(),
        "available-ip-address-count" | "availableIpAddressCount" => {
            subnet.available_ip_address_count.to_string().into()
        }
        "cidr" | "cidr-block" | "cidrBlock" => subnet.cidr_block.as_str().into(),
        "default-for-az" | "defaultForAz" => subnet.default_for_az.to_string().into(),
        "map-public-ip-on-launch" => subnet.map_public_ip_on_launch.to_string().into(),
        "owner-id" => subnet.owner_id.as_str().into(),
        "state" => subnet.state.as_str().into(),
        "vpc-id" => subnet.vpc_id.as_str().into(),
        _ => subnet.subnet_id.as_str().into(),
    }
}
