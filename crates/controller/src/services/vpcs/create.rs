//! CreateVpc, CreateDefaultVpc.

use std::ops::RangeInclusive;

use hearth_api::v1::{CreateDefaultVpcRequest, CreateDefaultVpcResult, CreateVpcRequest, CreateVpcResult};
use hearth_api::{ApiError, ErrorCode, Kind};
use ipnet::Ipv4Net;
use serde_json::json;

use super::describe::tell;
use crate::app::App;
use crate::services::input;
use crate::state::noun::keep_tags;
use crate::state::{DEFAULT_TENANCY, Region};
use crate::store::bootstrap::{make_default_subnets, make_default_vpc, make_vpc, new_vpc, overlap};

/// The sizes of VPCs and of subnets.
const PREFIXES: RangeInclusive<u8> = 16..=28;

/// The block that a request names, without what is set beyond its length.
///
/// # Errors
/// It is none; or it is larger or smaller than EC2 admits, with `code`.
pub(in crate::services) fn block(given: &str, code: ErrorCode) -> Result<Ipv4Net, ApiError> {
    if given.is_empty() {
        return Err(ApiError::missing("cidrBlock"));
    }
    let block: Ipv4Net = given
        .parse()
        .map_err(|_| ApiError::invalid_value("cidrBlock", given, "This is not a valid CIDR block."))?;
    if !PREFIXES.contains(&block.prefix_len()) {
        return Err(ApiError::new(
            code,
            format!("The CIDR '{given}' is invalid. Expecting a block between /16 and /28."),
        ));
    }
    Ok(block.trunc())
}

pub(super) async fn create(app: &App, request: CreateVpcRequest) -> Result<CreateVpcResult, ApiError> {
    let cidr = block(&request.cidr_block, ErrorCode::InvalidVpcRange)?;
    let pool = app.cloud.public_pool;
    let nobodys = ["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"];
    let mut nobodys = nobodys.iter().filter_map(|block| block.parse().ok());
    if overlap(&pool, &cidr) || nobodys.any(|block: Ipv4Net| overlap(&block, &cidr)) {
        return Err(ApiError::new(
            ErrorCode::InvalidVpcRange,
            format!(
                "The CIDR '{cidr}' is invalid: its addresses, or some of them, are no private ones, or those of the \
                 public addresses {pool}. Choose one within 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16."
            ),
        ));
    }
    if !["", DEFAULT_TENANCY].contains(&request.instance_tenancy.as_str()) {
        let expected = "Hearth has shared hosts only: default.";
        return Err(ApiError::invalid_value(
            "instanceTenancy",
            &request.instance_tenancy,
            expected,
        ));
    }
    if request.amazon_provided_ipv6_cidr_block {
        let expected = "Hearth does not have IPv6 yet; leave it out.";
        return Err(ApiError::invalid_value(
            "amazonProvidedIpv6CidrBlock",
            true,
            expected,
        ));
    }
    let tags = input::tags_for(&request.tag_specifications, &[Kind::Vpc], Kind::Vpc)?;
    let scope = app.scope();
    app.store
        .transact(move |tx| {
            let mut vpc = new_vpc(tx, &scope, cidr);
            vpc.tags = keep_tags(&tags);
            make_vpc(tx, &vpc);
            tx.audit(json!({ "vpc": vpc.id, "cidr": cidr.to_string() }));
            tx.event("vpc.created", &vpc.id);
            Ok(CreateVpcResult {
                vpc: Some(tell(&vpc)),
            })
        })
        .await
}

pub(super) async fn create_default(
    app: &App,
    _: CreateDefaultVpcRequest,
) -> Result<CreateDefaultVpcResult, ApiError> {
    let (scope, cidr) = (app.scope(), app.config.vpc_cidr);
    app.store
        .transact(move |tx| {
            if let Some(vpc) = tx.default_vpc(&scope) {
                return Err(ApiError::new(
                    ErrorCode::DefaultVpcAlreadyExists,
                    format!(
                        "A Default VPC already exists for this account in this region: {}.",
                        vpc.id
                    ),
                ));
            }
            let vpc = make_default_vpc(tx, &scope, cidr);
            let region = tx.get::<Region>(scope.region());
            let zones = region.map(|region| region.zones.clone()).unwrap_or_default();
            make_default_subnets(tx, &vpc, &zones);
            tx.audit(json!({ "vpc": vpc.id, "cidr": vpc.cidr.to_string() }));
            tx.event("vpc.created", &vpc.id);
            Ok(CreateDefaultVpcResult {
                vpc: Some(tell(&vpc)),
            })
        })
        .await
}
