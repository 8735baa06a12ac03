//! CreateRoute, ReplaceRoute, DeleteRoute. Hearth has no other targets than internet gateways yet.

use hearth_api::v1::{
    CreateRouteRequest, CreateRouteResult, DeleteRouteRequest, DeleteRouteResult, ReplaceRouteRequest,
    ReplaceRouteResult,
};
use hearth_api::{ApiError, ErrorCode, Kind};
use ipnet::Ipv4Net;
use serde_json::json;

use super::find;
use crate::app::App;
use crate::services::input;
use crate::state::{InternetGateway, RouteTable, State, Vpc};

/// Routes of a table.
/// <https://docs.aws.amazon.com/vpc/latest/userguide/amazon-vpc-limits.html>
pub(in crate::services) const MOST: usize = 50;

/// A route as a request names it.
struct Named {
    table_id: String,
    destination: Ipv4Net,
}

impl Named {
    fn parse(table_id: &str, destination: &str) -> Result<Self, ApiError> {
        let table_id = input::id(Kind::RouteTable, table_id, "RouteTableId")?.to_string();
        if destination.is_empty() {
            return Err(ApiError::missing("destinationCidrBlock"));
        }
        let parsed: Result<Ipv4Net, _> = destination.parse();
        let destination = parsed.map_err(|_| {
            let expected = "This is not a valid CIDR block.";
            ApiError::invalid_value("destinationCidrBlock", destination, expected)
        })?;
        Ok(Self {
            table_id,
            destination: destination.trunc(),
        })
    }

    /// The table, and the block of its local route.
    fn table(&self, state: &State) -> Result<(RouteTable, Ipv4Net), ApiError> {
        let table = find(state, &self.table_id)?;
        let vpc = state.get::<Vpc>(&table.vpc_id);
        let local = vpc
            .map(|vpc| vpc.cidr)
            .ok_or_else(|| Kind::Vpc.not_found(&[&table.vpc_id]))?;
        Ok((table, local))
    }
}

/// The gateway that a request names: one of the table's VPC.
fn gateway(state: &State, table: &RouteTable, given: &str) -> Result<String, ApiError> {
    if given.is_empty() {
        return Err(ApiError::new(
            ErrorCode::MissingParameter,
            "The request must contain the parameter gatewayId: internet gateways are the only targets that Hearth has.",
        ));
    }
    if Kind::of(given) != Some(Kind::InternetGateway) {
        let expected = "Expecting an internet gateway: Hearth has no other targets yet.";
        return Err(ApiError::invalid_value("gatewayId", given, expected));
    }
    let id = input::id(Kind::InternetGateway, given, "gatewayId")?;
    let Some(found) = state.own::<InternetGateway>(&id) else {
        return Err(ApiError::new(
            ErrorCode::InvalidGatewayIdNotFound,
            format!("The gateway ID '{id}' does not exist"),
        ));
    };
    if found.vpc_id.as_ref() != Some(&table.vpc_id) {
        return Err(ApiError::new(
            ErrorCode::InvalidParameterValue,
            format!(
                "route table {} and network gateway {id} belong to different networks. Attach the gateway to {} first.",
                table.id, table.vpc_id
            ),
        ));
    }
    Ok(found.id.clone())
}

pub(super) async fn create(app: &App, request: CreateRouteRequest) -> Result<CreateRouteResult, ApiError> {
    let named = Named::parse(&request.route_table_id, &request.destination_cidr_block)?;
    app.store
        .transact(move |tx| {
            let (mut table, local) = named.table(tx)?;
            let to = named.destination;
            if to == local || table.routes.contains_key(&to) {
                return Err(ApiError::new(
                    ErrorCode::RouteAlreadyExists,
                    format!("The route identified by {to} already exists."),
                ));
            }
            if local.contains(&to) {
                return Err(ApiError::new(
                    ErrorCode::InvalidParameterValue,
                    format!(
                        "The destination CIDR block {to} is equal to or more specific than one of this VPC's CIDR blocks. \
                         This route can target only an interface or an instance, which Hearth does not have yet."
                    ),
                ));
            }
            if table.routes.len() >= MOST {
                return Err(ApiError::new(
                    ErrorCode::RouteLimitExceeded,
                    format!(
                        "The maximum number of routes, {MOST}, has been reached in {}. Delete some first.",
                        table.id
                    ),
                ));
            }
            let gateway = gateway(tx, &table, &request.gateway_id)?;
            tx.audit(json!({ "route_table": table.id, "to": to.to_string(), "gateway": gateway }));
            tx.event("route.created", &table.id);
            table.routes.insert(to, gateway);
            tx.put(table);
            Ok(CreateRouteResult { r#return: true })
        })
        .await
}

pub(super) async fn replace(app: &App, request: ReplaceRouteRequest) -> Result<ReplaceRouteResult, ApiError> {
    let named = Named::parse(&request.route_table_id, &request.destination_cidr_block)?;
    app.store
        .transact(move |tx| {
            let (mut table, local) = named.table(tx)?;
            let to = named.destination;
            if to == local {
                return Err(ApiError::new(
                    ErrorCode::InvalidParameterValue,
                    format!("The route {to} is the VPC's local one, which stays."),
                ));
            }
            if !table.routes.contains_key(&to) {
                return Err(ApiError::new(
                    ErrorCode::InvalidParameterValue,
                    format!(
                        "There is no route defined for '{to}' in the route table. Use CreateRoute instead."
                    ),
                ));
            }
            let gateway = gateway(tx, &table, &request.gateway_id)?;
            tx.audit(json!({ "route_table": table.id, "to": to.to_string(), "gateway": gateway }));
            tx.event("route.replaced", &table.id);
            table.routes.insert(to, gateway);
            tx.put(table);
            Ok(ReplaceRouteResult {})
        })
        .await
}

pub(super) async fn delete(app: &App, request: DeleteRouteRequest) -> Result<DeleteRouteResult, ApiError> {
    let named = Named::parse(&request.route_table_id, &request.destination_cidr_block)?;
    app.store
        .transact(move |tx| {
            let (mut table, local) = named.table(tx)?;
            let to = named.destination;
            if to == local {
                return Err(ApiError::new(
                    ErrorCode::InvalidParameterValue,
                    format!("cannot remove local route {to} in route table {}", table.id),
                ));
            }
            if table.routes.remove(&to).is_none() {
                return Err(ApiError::new(
                    ErrorCode::InvalidRouteNotFound,
                    format!(
                        "no route with destination-cidr-block {to} in route table {}",
                        table.id
                    ),
                ));
            }
            tx.audit(json!({ "route_table": table.id, "to": to.to_string() }));
            tx.event("route.deleted", &table.id);
            tx.put(table);
            Ok(DeleteRouteResult {})
        })
        .await
}
