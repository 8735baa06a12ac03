//! DescribeVpcAttribute, ModifyVpcAttribute.

use hearth_api::v1::{
    AttributeBooleanValue, DescribeVpcAttributeRequest, DescribeVpcAttributeResult,
    ModifyVpcAttributeRequest, ModifyVpcAttributeResult,
};
use hearth_api::{ApiError, Kind};
use serde_json::json;

use crate::app::App;
use crate::services::input;
use crate::state::Vpc;

pub(super) async fn describe(
    app: &App,
    request: DescribeVpcAttributeRequest,
) -> Result<DescribeVpcAttributeResult, ApiError> {
    let id = input::id(Kind::Vpc, &request.vpc_id, "VpcId")?;
    let state = app.state();
    let row = state.get::<Vpc>(&id).ok_or_else(|| Kind::Vpc.not_found(&[&id]))?;
    let mut told = DescribeVpcAttributeResult {
        vpc_id: id.to_string(),
        ..DescribeVpcAttributeResult::default()
    };
    let is = |value| Some(AttributeBooleanValue { value });
    match request.attribute.as_str() {
        "enableDnsSupport" => told.enable_dns_support = is(row.dns_support),
        "enableDnsHostnames" => told.enable_dns_hostnames = is(row.dns_hostnames),
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

pub(super) async fn modify(
    app: &App,
    request: ModifyVpcAttributeRequest,
) -> Result<ModifyVpcAttributeResult, ApiError> {
    let id = input::id(Kind::Vpc, &request.vpc_id, "VpcId")?.to_string();
    let (support, hostnames) = (request.enable_dns_support, request.enable_dns_hostnames);
    let (name, value) = match (support, hostnames) {
        (Some(asked), None) => ("enableDnsSupport", asked.value),
        (None, Some(asked)) => ("enableDnsHostnames", asked.value),
        (None, None) => return Err(ApiError::missing("Attribute")),
        (Some(_), Some(_)) => return Err(ApiError::combination("enableDnsSupport", "enableDnsHostnames")),
    };
    app.store
        .transact(move |tx| {
            let change = |row: &mut Vpc| match support {
                Some(_) => row.dns_support = value,
                None => row.dns_hostnames = value,
            };
            if !tx.update(&id, change) {
                return Err(Kind::Vpc.not_found(&[&id]));
            }
            tx.audit(json!({ "vpc": id, name: value }));
            tx.event("vpc.modified", &id);
            Ok(ModifyVpcAttributeResult {})
        })
        .await
}
