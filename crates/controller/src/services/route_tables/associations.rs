//! AssociateRouteTable, DisassociateRouteTable, ReplaceRouteTableAssociation.

use hearth_api::v1::{
    AssociateRouteTableRequest, AssociateRouteTableResult, DisassociateRouteTableRequest,
    DisassociateRouteTableResult, ReplaceRouteTableAssociationRequest, ReplaceRouteTableAssociationResult,
};
use hearth_api::{ApiError, ErrorCode, Kind};
use serde_json::json;

use super::describe::associated;
use super::find;
use crate::app::App;
use crate::services::input;
use crate::state::{Association, RouteTable, State, Subnet};

pub(super) async fn associate(
    app: &App,
    request: AssociateRouteTableRequest,
) -> Result<AssociateRouteTableResult, ApiError> {
    let id = input::id(Kind::RouteTable, &request.route_table_id, "RouteTableId")?.to_string();
    let subnet_id = input::id(Kind::Subnet, &request.subnet_id, "SubnetId")?.to_string();
    app.store
        .transact(move |tx| {
            let mut table = find(tx, &id)?;
            let Some(subnet) = tx.own::<Subnet>(&subnet_id) else {
                return Err(Kind::Subnet.not_found(&[&subnet_id]));
            };
            if subnet.vpc_id != table.vpc_id {
                return Err(networks_differ(&format!("subnet {subnet_id}"), &id));
            }
            let is_it = |one: &&Association| one.subnet_id.as_ref() == Some(&subnet_id);
            if let Some(association) = table.associations.iter().find(is_it) {
                return Ok(AssociateRouteTableResult {
                    association_id: association.id.clone(),
                    association_state: associated(),
                });
            }
            if let Some(other) = tx.first_by(&RouteTable::BY_SUBNET, &subnet_id) {
                return Err(ApiError::new(
                    ErrorCode::ResourceAlreadyAssociated,
                    format!(
                        "the specified association for route table {id} conflicts with an existing association: \
                         {subnet_id} is associated with {}. Replace that association.",
                        other.id
                    ),
                ));
            }
            let association = Association::new(Some(subnet_id.clone()));
            let association_id = association.id.clone();
            table.associations.push(association);
            tx.put(table);
            tx.audit(json!({ "route_table": id, "subnet": subnet_id, "association": association_id }));
            tx.event("route-table.associated", &id);
            Ok(AssociateRouteTableResult {
                association_id,
                association_state: associated(),
            })
        })
        .await
}

fn networks_differ(what: &str, table_id: &str) -> ApiError {
    ApiError::new(
        ErrorCode::InvalidParameterValue,
        format!("route table {table_id} and {what} belong to different networks"),
    )
}

/// The caller's table that has an association, and the association.
fn associated_by(state: &State, id: &str) -> Result<(RouteTable, Association), ApiError> {
    let table = state.first_by(&RouteTable::BY_ASSOCIATION, id).cloned();
    let found = table.and_then(|table| {
        let association = table.associations.iter().find(|one| one.id == id).cloned()?;
        Some((table, association))
    });
    found.ok_or_else(|| {
        ApiError::new(
            ErrorCode::InvalidAssociationIdNotFound,
            format!("The association ID '{id}' does not exist"),
        )
    })
}

pub(super) async fn disassociate(
    app: &App,
    request: DisassociateRouteTableRequest,
) -> Result<DisassociateRouteTableResult, ApiError> {
    let id = request.association_id;
    app.store
        .transact(move |tx| {
            let (mut table, association) = associated_by(tx, &id)?;
            if association.subnet_id.is_none() {
                return Err(ApiError::new(
                    ErrorCode::InvalidParameterValue,
                    format!(
                        "cannot disassociate the main route table association {id}. Make another table the main one by \
                         ReplaceRouteTableAssociation."
                    ),
                ));
            }
            table.associations.retain(|one| one.id != id);
            tx.audit(json!({ "route_table": table.id, "subnet": association.subnet_id, "association": id }));
            tx.event("route-table.disassociated", &table.id);
            tx.put(table);
            Ok(DisassociateRouteTableResult {})
        })
        .await
}

pub(super) async fn replace(
    app: &App,
    request: ReplaceRouteTableAssociationRequest,
) -> Result<ReplaceRouteTableAssociationResult, ApiError> {
    let id = request.association_id;
    let table_id = input::id(Kind::RouteTable, &request.route_table_id, "RouteTableId")?.to_string();
    app.store
        .transact(move |tx| {
            let mut table = find(tx, &table_id)?;
            let (mut before, association) = associated_by(tx, &id)?;
            if before.id == table_id {
                return Ok(ReplaceRouteTableAssociationResult {
                    new_association_id: id,
                    association_state: associated(),
                });
            }
            if before.vpc_id != table.vpc_id {
                return Err(networks_differ(&format!("association {id}"), &table_id));
            }
            before.associations.retain(|one| one.id != id);
            tx.put(before);
            let association = Association::new(association.subnet_id);
            let new_association_id = association.id.clone();
            table.associations.push(association);
            tx.put(table);
            tx.audit(json!({ "route_table": table_id, "before": id, "association": new_association_id }));
            tx.event("route-table.associated", &table_id);
            Ok(ReplaceRouteTableAssociationResult {
                new_association_id,
                association_state: associated(),
            })
        })
        .await
}
