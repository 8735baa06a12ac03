//! DescribeVpcs.

use std::sync::Arc;

use hearth_api::Kind;
use hearth_api::filter::Filters;
use hearth_api::page::{paginate, refuse_page_of_ids};
use hearth_api::v1::{DescribeVpcsRequest, DescribeVpcsResponse, Vpc, vpcs_server};
use tonic::{Request, Response, Status};

use super::{Failure, answer, input, refuse_dry_run};
use crate::app::App;
use crate::store::{networks, tags};

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
        answer("DescribeVpcs", describe(&self.0, &request.into_inner()).await)
    }
}

async fn describe(app: &App, request: &DescribeVpcsRequest) -> Result<DescribeVpcsResponse, Failure> {
    refuse_page_of_ids(&request.vpc_ids, request.page.as_ref(), "vpcSet")?;
    let filters = Filters::new(&request.filters, FILTERS)?;
    let mut read = app.store.read().await?;
    let rows = networks::vpcs(&mut read).await?;
    let mut tags = tags::of_type(&mut read, Kind::Vpc.resource_type(), None).await?;
    drop(read);
    input::all_known(
        Kind::Vpc,
        &request.vpc_ids,
        rows.iter().map(|row| row.id.as_str()),
    )?;
    refuse_dry_run(request.dry_run)?;
    let vpcs = rows.into_iter().map(|row| Vpc {
        tags: tags.remove(&row.id).unwrap_or_default(),
        vpc_id: row.id,
        cidr_block: row.cidr,
        state: "available".into(),
        is_default: row.is_default,
        owner_id: app.cloud().owner_id.clone(),
        instance_tenancy: "default".into(),
    });
    let told = vpcs.filter(|vpc| {
        (request.vpc_ids.is_empty() || request.vpc_ids.contains(&vpc.vpc_id))
            && filters.matches(&vpc.tags, |name| {
                vec![match name {
                    "cidr" => vpc.cidr_block.as_str().into(),
                    "is-default" | "isDefault" => vpc.is_default.to_string().into(),
                    "owner-id" => vpc.owner_id.as_str().into(),
                    "state" => vpc.state.as_str().into(),
                    _ => vpc.vpc_id.as_str().into(),
                }]
            })
    });
    let (vpcs, next_token) = paginate(told.collect(), request.page.as_ref(), |vpc: &Vpc| {
        vpc.vpc_id.clone()
    })?;
    Ok(DescribeVpcsResponse { vpcs, next_token })
}
