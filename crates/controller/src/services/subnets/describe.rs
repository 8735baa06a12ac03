//! DescribeSubnets.

use hearth_api::filter::{Filters, Known, no};
use hearth_api::known;
use hearth_api::page::{Page, paginate, refuse_page_of_ids};
use hearth_api::v1::{DescribeSubnetsRequest, DescribeSubnetsResponse, Subnet};
use hearth_api::{ApiError, Kind, zones};

use crate::addresses;
use crate::app::App;
use crate::services::input;
use crate::state::noun::tell_tags;
use crate::state::{self, State};
use crate::views;

pub(in crate::services) const FILTERS: Known<Subnet> = known! {
    tags: |item| &item.tags;
    "availability-zone" => availability_zone,
    "availability-zone-id" => availability_zone_id,
    "availabilityZone" => availability_zone,
    "available-ip-address-count" => available_ip_address_count,
    "availableIpAddressCount" => available_ip_address_count,
    "cidr" => cidr_block,
    "cidr-block" => cidr_block,
    "cidrBlock" => cidr_block,
    "customer-owned-ipv4-pool" => none,
    "default-for-az" => default_for_az,
    "defaultForAz" => default_for_az,
    "enable-dns64" => (no),
    "enable-lni-at-device-index" => none,
    "ipv6-cidr-block-association.association-id" => none,
    "ipv6-cidr-block-association.ipv6-cidr-block" => none,
    "ipv6-cidr-block-association.state" => none,
    "ipv6-native" => (no),
    "map-customer-owned-ip-on-launch" => (no),
    "map-public-ip-on-launch" => map_public_ip_on_launch,
    "outpost-arn" => none,
    "owner-id" => owner_id,
    "private-dns-name-options-on-launch.enable-resource-name-dns-a-record" => (no),
    "private-dns-name-options-on-launch.enable-resource-name-dns-aaaa-record" => (no),
    "private-dns-name-options-on-launch.hostname-type" => (views::ip_name),
    "state" => state,
    "subnet-arn" => subnet_arn,
    "subnet-id" => subnet_id,
    "vpc-id" => vpc_id,
};

pub(super) async fn describe(
    app: &App,
    request: DescribeSubnetsRequest,
) -> Result<DescribeSubnetsResponse, ApiError> {
    let page = Page::new(request.max_results, &request.next_token);
    refuse_page_of_ids(&request.subnet_ids, page, "subnetSet")?;
    let filters = Filters::new(&request.filters, &FILTERS)?;
    let state = app.state();
    input::all_known(Kind::Subnet, &request.subnet_ids, |id| {
        state.get::<state::Subnet>(id).is_some()
    })?;
    let wanted = state
        .all::<state::Subnet>()
        .filter(|subnet| request.subnet_ids.is_empty() || request.subnet_ids.contains(&subnet.id));
    let tell = |row: &state::Subnet| {
        let subnet = tell(&state, row);
        filters.matches(&subnet).then_some(subnet)
    };
    let (subnets, next_token) = paginate(wanted, page, |row| row.id.clone(), tell)?;
    Ok(DescribeSubnetsResponse { subnets, next_token })
}

pub(super) fn tell(state: &State, row: &state::Subnet) -> Subnet {
    Subnet {
        subnet_id: row.id.clone(),
        vpc_id: row.vpc_id.clone(),
        cidr_block: row.cidr.to_string(),
        availability_zone: row.availability_zone.clone(),
        availability_zone_id: zones::id(&row.availability_zone),
        state: "available".into(),
        default_for_az: row.default_for_az,
        map_public_ip_on_launch: row.map_public_ip_on_launch,
        available_ip_address_count: i32::try_from(addresses::free_count(state, row)).unwrap_or(i32::MAX),
        owner_id: row.account_id.clone(),
        subnet_arn: format!("arn:aws:ec2:{}:{}:subnet/{}", row.region, row.account_id, row.id),
        tags: tell_tags(&row.tags),
    }
}
