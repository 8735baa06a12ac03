//! Route tables: made, described, deleted; their associations with subnets; their routes.
//! <https://docs.aws.amazon.com/vpc/latest/userguide/VPC_Route_Tables.html>

use hearth_api::{ApiError, Kind};

use super::serve;
use crate::state::{RouteTable, State};

mod associations;
pub(super) mod describe;
mod routes;
mod tables;

pub(super) use routes::MOST as MOST_ROUTES;
pub(super) use tables::MOST;

serve! { route_tables_server::RouteTables as RouteTables {
    create_route_table(CreateRouteTableRequest) -> CreateRouteTableResult: tables::create;
    delete_route_table(DeleteRouteTableRequest) -> DeleteRouteTableResult: tables::delete;
    describe_route_tables(DescribeRouteTablesRequest) -> DescribeRouteTablesResult: describe::describe;
    associate_route_table(AssociateRouteTableRequest) -> AssociateRouteTableResult: associations::associate;
    disassociate_route_table(DisassociateRouteTableRequest) -> DisassociateRouteTableResult: associations::disassociate;
    replace_route_table_association(ReplaceRouteTableAssociationRequest) -> ReplaceRouteTableAssociationResult: associations::replace;
    create_route(CreateRouteRequest) -> CreateRouteResult: routes::create;
    replace_route(ReplaceRouteRequest) -> ReplaceRouteResult: routes::replace;
    delete_route(DeleteRouteRequest) -> DeleteRouteResult: routes::delete;
} }

/// The caller's table with an id.
fn find(state: &State, id: &str) -> Result<RouteTable, ApiError> {
    let found = state.own::<RouteTable>(id).cloned();
    found.ok_or_else(|| Kind::RouteTable.not_found(&[id]))
}
