//! DescribeSubnets.

use std::sync::Arc;

use hearth_api::Kind;
use hearth_api::filter::Filters;
use hearth_api::page::{paginate, refuse_page_of_ids};
use hearth_api::v1::{DescribeSubnetsRequest, DescribeSubnetsResponse, Subnet, subnets_server};
use ipnet::Ipv4Net;
use tonic::{Request, Response, Status};

use super::{Failure, answer, input, refuse_dry_run};
use crate::app::App;
use crate::store::{addresses, networks, tags};

const FILTERS: &[&str] = &[
    "availability-zone",
    "available-ip-address-count",
    "cidr",
    "cidr-block",
    "default-for-az",
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
        answer("DescribeSubnets", describe(&self.0, &request.into_inner()).await)
    }
}

async fn describe(app: &App, request: &DescribeSubnetsRequest) -> Result<DescribeSubnetsResponse, Failure> {
    refuse_page_of_ids(&request.subnet_ids, request.page.as_ref(), "subnetSet")?;
    let filters = Filters::new(&request.filters, FILTERS)?;
    let mut read = app.store.read().await?;
    let rows = networks::subnets(&mut read).await?;
    let mut tags = tags::of_type(&mut read, Kind::Subnet.resource_type(), None).await?;
    let mut subnets = Vec::new();
    for row in rows {
        let taken = addresses::taken_in(&mut read, &row.id).await?.len();
        let usable = row
            .cidr
            .parse::<Ipv4Net>()
            .map_or(0, |cidr| addresses::usable(cidr).count());
        subnets.push(Subnet {
            tags: tags.remove(&row.id).unwrap_or_default(),
            subnet_id: row.id,
            vpc_id: row.vpc_id,
            cidr_block: row.cidr,
            availability_zone: row.availability_zone,
            state: "available".into(),
            default_for_az: row.default_for_az,
            map_public_ip_on_launch: row.map_public_ip_on_launch,
            available_ip_address_count: i32::try_from(usable.saturating_sub(taken)).unwrap_or(i32::MAX),
            owner_id: app.cloud().owner_id.clone(),
        });
    }
    drop(read);
    input::all_known(
        Kind::Subnet,
        &request.subnet_ids,
        subnets.iter().map(|s| s.subnet_id.as_str()),
    )?;
    refuse_dry_run(request.dry_run)?;
    subnets.retain(|subnet| {
        (request.subnet_ids.is_empty() || request.subnet_ids.contains(&subnet.subnet_id))
            && filters.matches(&subnet.tags, |name| {
                vec![match name {
                    "availability-zone" => subnet.availability_zone.as_str().into(),
                    "available-ip-address-count" => subnet.available_ip_address_count.to_string().into(),
                    "cidr" | "cidr-block" => subnet.cidr_block.as_str().into(),
                    "default-for-az" => subnet.default_for_az.to_string().into(),
                    "map-public-ip-on-launch" => subnet.map_public_ip_on_launch.to_string().into(),
                    "owner-id" => subnet.owner_id.as_str().into(),
                    "state" => subnet.state.as_str().into(),
                    "vpc-id" => subnet.vpc_id.as_str().into(),
                    _ => subnet.subnet_id.as_str().into(),
                }]
            })
    });
    let (subnets, next_token) = paginate(subnets, request.page.as_ref(), |s: &Subnet| s.subnet_id.clone())?;
    Ok(DescribeSubnetsResponse { subnets, next_token })
}
