//! DescribeVpcs.

use std::sync::Arc;

use hearth_api::filter::Filters;
use hearth_api::page::{Page, paginate, refuse_page_of_ids};
use hearth_api::v1::{
    AttributeBooleanValue, DescribeVpcAttributeRequest, DescribeVpcAttributeResult, DescribeVpcsRequest,
    DescribeVpcsResponse, Vpc, vpcs_server,
};
use hearth_api::{ApiError, Kind};
use tonic::{Request, Response, Status};

use super::{answer, input};
use crate::app::App;
use crate::state;
use crate::state::noun::tell_tags;

const FILTERS: &[&str] = &[
    "cidr",
    "is-default",
    "isDefault",
    "owner-id",
    "state",
    "tag",
    "vpc-id",
];

pub(super) struct Vpcs(pub(super) Arc<App>);

#[tonic::async_trait]
impl vpcs_server::Vpcs for Vpcs {
    async fn describe_vpcs(
        &self,
        request: Request<DescribeVpcsRequest>,
    ) -> Result<Response<DescribeVpcsResponse>, Status> {
        answer(describe(&self.0, &request.into_inner()))
    }

    async fn describe_vpc_attribute(
        &self,
        request: Request<DescribeVpcAttributeRequest>,
    ) -> Result<Response<DescribeVpcAttributeResult>, Status> {
        answer(attribute(&self.0, &request.into_inner()))
    }
}

/// Every VPC has Hearth's resolver, which knows its instances by name.
fn attribute(
    app: &App,
    request: &DescribeVpcAttributeRequest,
) -> Result<DescribeVpcAttributeResult, ApiError> {
    let id = input::id(Kind::Vpc, &request.vpc_id, "VpcId")?;
    if app.state().get::<state::Vpc>(&id).is_none() {
        return Err(Kind::Vpc.not_found(&[&id]));
    }
    let mut told = DescribeVpcAttributeResult {
        vpc_id: id.to_string(),
        ..DescribeVpcAttributeResult::default()
    };
    let is = |value| Some(AttributeBooleanValue { value });
    match request.attribute.as_str() {
        "enableDnsSupport" => told.enable_dns_support = is(true),
        "enableDnsHostnames" => told.enable_dns_hostnames = is(true),
        "enableNetworkAddressUsageMetrics" => told.enable_network_address_usage_metrics = is(false),
        "" => return Err(ApiError::missing("Attribute")),
        other => {
            return Err(ApiError::invalid_value(
                "Attribute",
                other,
                "It is none of a VPC's attributes.",
            ));
        }
    }
    Ok(told)
}

fn describe(app: &App, request: &DescribeVpcsRequest) -> Result<DescribeVpcsResponse, ApiError> {
    let page = Page::new(request.max_results, &request.next_token);
    refuse_page_of_ids(&request.vpc_ids, page, "vpcSet")?;
    let filters = Filters::new(&request.filters, FILTERS)?;
    let state = app.state();
    input::all_known(Kind::Vpc, &request.vpc_ids, |id| {
        state.get::<state::Vpc>(id).is_some()
    })?;
    let wanted = state
        .all::<state::Vpc>()
        .filter(|vpc| request.vpc_ids.is_empty() || request.vpc_ids.contains(&vpc.id));
    let tell = |row: &state::Vpc| {
        let vpc = Vpc {
            vpc_id: row.id.clone(),
            cidr_block: row.cidr.to_string(),
            state: "available".into(),
            is_default: row.is_default,
            owner_id: row.account_id.clone(),
            instance_tenancy: "default".into(),
            tags: tell_tags(&row.tags),
        };
        let passes = filters.matches(&vpc.tags, |name| {
            vec![match name {
                "cidr" => vpc.cidr_block.as_str().into(),
                "is-default" | "isDefault" => vpc.is_default.to_string().into(),
                "owner-id" => vpc.owner_id.as_str().into(),
                "state" => vpc.state.as_str().into(),
                _ => vpc.vpc_id.as_str().into(),
            }]
        });
        passes.then_some(vpc)
    };
    let (vpcs, next_token) = paginate(wanted, page, |row| row.id.clone(), tell)?;
    Ok(DescribeVpcsResponse { vpcs, next_token })
}
