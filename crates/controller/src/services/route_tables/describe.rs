//! DescribeRouteTables.

use hearth_api::filter::{Filters, Known};
use hearth_api::known;
use hearth_api::page::{Page, paginate, refuse_page_of_ids};
use hearth_api::v1::{
    DescribeRouteTablesRequest, DescribeRouteTablesResult, Route, RouteTable, RouteTableAssociation,
    RouteTableAssociationState,
};
use hearth_api::{ApiError, Kind};

use crate::app::App;
use crate::services::input;
use crate::state::noun::tell_tags;
use crate::state::{self, State, Vpc};

/// The target of the route that every table has.
pub(super) const LOCAL: &str = "local";

pub(in crate::services) const FILTERS: Known<RouteTable> = known! {
    tags: |item| &item.tags;
    "association.gateway-id" => none,
    "association.main" => associations.main,
    "association.route-table-association-id" => associations.route_table_association_id,
    "association.route-table-id" => associations.route_table_id,
    "association.subnet-id" => associations.subnet_id,
    "owner-id" => owner_id,
    "route-table-id" => route_table_id,
    "route.destination-cidr-block" => routes.destination_cidr_block,
    "route.destination-ipv6-cidr-block" => none,
    "route.destination-prefix-list-id" => none,
    "route.egress-only-internet-gateway-id" => none,
    "route.gateway-id" => routes.gateway_id,
    "route.instance-id" => none,
    "route.nat-gateway-id" => none,
    "route.origin" => routes.origin,
    "route.state" => routes.state,
    "route.transit-gateway-id" => none,
    "route.vpc-peering-connection-id" => none,
    "vpc-id" => vpc_id,
};

pub(super) fn associated() -> Option<RouteTableAssociationState> {
    Some(RouteTableAssociationState {
        state: "associated".into(),
    })
}

pub(super) fn tell(state: &State, row: &state::RouteTable) -> RouteTable {
    let attached = state.gateway_of(&row.vpc_id).map(|gateway| &gateway.id);
    let local = state.get::<Vpc>(&row.vpc_id).map(|vpc| Route {
        destination_cidr_block: vpc.cidr.to_string(),
        gateway_id: LOCAL.into(),
        origin: "CreateRouteTable".into(),
        state: "active".into(),
    });
    let own = row.routes.iter().map(|(destination, gateway_id)| Route {
        destination_cidr_block: destination.to_string(),
        gateway_id: gateway_id.clone(),
        origin: "CreateRoute".into(),
        state: if attached == Some(gateway_id) {
            "active"
        } else {
            "blackhole"
        }
        .into(),
    });
    let association = |one: &state::Association| RouteTableAssociation {
        main: one.subnet_id.is_none(),
        route_table_association_id: one.id.clone(),
        route_table_id: row.id.clone(),
        subnet_id: one.subnet_id.clone().unwrap_or_default(),
        association_state: associated(),
    };
    RouteTable {
        associations: row.associations.iter().map(association).collect(),
        route_table_id: row.id.clone(),
        routes: local.into_iter().chain(own).collect(),
        tags: tell_tags(&row.tags),
        vpc_id: row.vpc_id.clone(),
        owner_id: row.account_id.clone(),
    }
}

pub(super) async fn describe(
    app: &App,
    request: DescribeRouteTablesRequest,
) -> Result<DescribeRouteTablesResult, ApiError> {
    let ids = &request.route_table_ids;
    let page = Page::new(request.max_results, &request.next_token);
    refuse_page_of_ids(ids, page, "routeTableIdSet")?;
    let filters = Filters::new(&request.filters, &FILTERS)?;
    let state = app.state();
    input::all_known(Kind::RouteTable, ids, |id| {
        state.get::<state::RouteTable>(id).is_some()
    })?;
    let wanted = state
        .all::<state::RouteTable>()
        .filter(|row| ids.is_empty() || ids.contains(&row.id));
    let tell = |row: &state::RouteTable| {
        let told = tell(&state, row);
        filters.matches(&told).then_some(told)
    };
    let (route_tables, next_token) = paginate(wanted, page, |row| row.id.clone(), tell)?;
    Ok(DescribeRouteTablesResult {
        route_tables,
        next_token,
    })
}
