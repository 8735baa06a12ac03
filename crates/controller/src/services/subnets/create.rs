//! CreateSubnet, CreateDefaultSubnet.

use hearth_api::v1::{
    CreateDefaultSubnetRequest, CreateDefaultSubnetResult, CreateSubnetRequest, CreateSubnetResult,
};
use hearth_api::{ApiError, ErrorCode, Id, Kind, zones};
use ipnet::Ipv4Net;
use serde_json::json;

use super::describe::tell;
use crate::app::App;
use crate::services::{input, vpcs};
use crate::state::noun::keep_tags;
use crate::state::{self, Region, Scope, State, Vpc};
use crate::store::bootstrap::{default_subnet, overlap};

/// Subnets of a VPC.
/// <https://docs.aws.amazon.com/vpc/latest/userguide/amazon-vpc-limits.html>
pub(in crate::services) const MOST: usize = 200;

pub(super) async fn create(app: &App, request: CreateSubnetRequest) -> Result<CreateSubnetResult, ApiError> {
    let vpc_id = input::id(Kind::Vpc, &request.vpc_id, "VpcId")?.to_string();
    let cidr = vpcs::block(&request.cidr_block, ErrorCode::InvalidSubnetRange)?;
    let tags = input::tags_for(&request.tag_specifications, &[Kind::Subnet], Kind::Subnet)?;
    let scope = app.scope();
    app.store
        .transact(move |tx| {
            let vpc = tx
                .own::<Vpc>(&vpc_id)
                .cloned()
                .ok_or_else(|| Kind::Vpc.not_found(&[&vpc_id]))?;
            let zone = zone(
                tx,
                &scope,
                &request.availability_zone,
                &request.availability_zone_id,
            )?;
            check_block(tx, &vpc, cidr)?;
            let subnet = state::Subnet {
                id: Id::new(Kind::Subnet).to_string(),
                account_id: vpc.account_id.clone(),
                region: vpc.region.clone(),
                vpc_id,
                cidr,
                availability_zone: zone,
                default_for_az: false,
                map_public_ip_on_launch: false,
                created_at: tx.now(),
                tags: keep_tags(&tags),
            };
            tx.audit(json!({ "subnet": subnet.id, "vpc": vpc.id, "cidr": cidr.to_string() }));
            tx.event("subnet.created", &subnet.id);
            tx.put(subnet.clone());
            Ok(CreateSubnetResult {
                subnet: Some(tell(tx, &subnet)),
            })
        })
        .await
}

fn check_block(state: &State, vpc: &Vpc, cidr: Ipv4Net) -> Result<(), ApiError> {
    if !vpc.cidr.contains(&cidr) {
        return Err(ApiError::new(
            ErrorCode::InvalidSubnetRange,
            format!(
                "The CIDR '{cidr}' is invalid. Expecting a block within that of the VPC, {}.",
                vpc.cidr
            ),
        ));
    }
    let mut others = state.by(&state::Subnet::BY_VPC, &vpc.id);
    if let Some(other) = others.find(|other| overlap(&other.cidr, &cidr)) {
        return Err(ApiError::new(
            ErrorCode::InvalidSubnetConflict,
            format!(
                "The CIDR '{cidr}' conflicts with another subnet: {} has {}.",
                other.id, other.cidr
            ),
        ));
    }
    check_room(state, vpc)
}

fn check_room(state: &State, vpc: &Vpc) -> Result<(), ApiError> {
    if state.by(&state::Subnet::BY_VPC, &vpc.id).count() >= MOST {
        return Err(ApiError::new(
            ErrorCode::SubnetLimitExceeded,
            format!(
                "The maximum number of subnets, {MOST}, has been reached in {}. Delete some first.",
                vpc.id
            ),
        ));
    }
    Ok(())
}

/// The zone of the region that a request names by its name or its id; the first one when it names none.
fn zone(state: &State, scope: &Scope, name: &str, id: &str) -> Result<String, ApiError> {
    let zones = state.get::<Region>(scope.region()).map(|region| &region.zones);
    let mut zones = zones.into_iter().flatten();
    let (parameter, given, found) = match (name, id) {
        ("", "") => ("availabilityZone", "", zones.next()),
        (name, "") => ("availabilityZone", name, zones.find(|zone| *zone == name)),
        ("", id) => ("availabilityZoneId", id, zones.find(|zone| zones::id(zone) == id)),
        _ => return Err(ApiError::combination("availabilityZone", "availabilityZoneId")),
    };
    found.cloned().ok_or_else(|| {
        let expected =
            "Subnets can currently only be created in the zones that DescribeAvailabilityZones lists.";
        ApiError::invalid_value(parameter, given, expected)
    })
}

pub(super) async fn create_default(
    app: &App,
    request: CreateDefaultSubnetRequest,
) -> Result<CreateDefaultSubnetResult, ApiError> {
    let scope = app.scope();
    app.store
        .transact(move |tx| {
            let (name, id) = (&request.availability_zone, &request.availability_zone_id);
            if name.is_empty() && id.is_empty() {
                return Err(ApiError::missing("availabilityZone"));
            }
            let zone = zone(tx, &scope, name, id)?;
            let Some(vpc) = tx.default_vpc(&scope).cloned() else {
                return Err(ApiError::new(
                    ErrorCode::DefaultVpcDoesNotExist,
                    "There is no default VPC in this region. CreateDefaultVpc makes one.",
                ));
            };
            let mut subnets = tx.by(&state::Subnet::BY_VPC, &vpc.id);
            if let Some(subnet) = subnets.find(|one| one.default_for_az && one.availability_zone == zone) {
                return Err(ApiError::new(
                    ErrorCode::DefaultSubnetAlreadyExists,
                    format!(
                        "The subnet {} is the default subnet of {zone} already.",
                        subnet.id
                    ),
                ));
            }
            drop(subnets);
            check_room(tx, &vpc)?;
            let Some(subnet) = default_subnet(tx, &vpc, &zone) else {
                return Err(ApiError::new(
                    ErrorCode::InvalidSubnetConflict,
                    format!(
                        "There is no block free in {} for a default subnet. Delete a subnet first.",
                        vpc.cidr
                    ),
                ));
            };
            tx.audit(json!({ "subnet": subnet.id, "vpc": vpc.id, "cidr": subnet.cidr.to_string() }));
            tx.event("subnet.created", &subnet.id);
            tx.put(subnet.clone());
            Ok(CreateDefaultSubnetResult {
                subnet: Some(tell(tx, &subnet)),
            })
        })
        .await
}
