//! CreateRouteTable, DeleteRouteTable.

use hearth_api::v1::{
    CreateRouteTableRequest, CreateRouteTableResult, DeleteRouteTableRequest, DeleteRouteTableResult,
};
use hearth_api::{ApiError, ErrorCode, Kind};
use prost::Message as _;
use serde_json::json;

use super::describe::tell;
use super::find;
use crate::app::App;
use crate::services::{client_tokens, input};
use crate::state::noun::keep_tags;
use crate::state::{ClientToken, RouteTable, Vpc};
use crate::store::bootstrap::new_table;

const ACTION: &str = "CreateRouteTable";
/// Route tables of a VPC.
/// <https://docs.aws.amazon.com/vpc/latest/userguide/amazon-vpc-limits.html>
pub(in crate::services) const MOST: usize = 200;

pub(super) async fn create(
    app: &App,
    request: CreateRouteTableRequest,
) -> Result<CreateRouteTableResult, ApiError> {
    let vpc_id = input::id(Kind::Vpc, &request.vpc_id, "VpcId")?.to_string();
    input::check_client_token(&request.client_token)?;
    let tags = input::tags_for(&request.tag_specifications, &[Kind::RouteTable], Kind::RouteTable)?;
    let (scope, hash) = (app.scope(), hash(&request));
    app.store
        .transact(move |tx| {
            let client_token = request.client_token;
            let token_id = ClientToken::id_of(&scope, ACTION, "", &client_token);
            if let Some(before) = client_tokens::recall(tx, &client_token, &token_id, &hash)? {
                let table = find(tx, &before.resource_id)?;
                return Ok(CreateRouteTableResult {
                    route_table: Some(tell(tx, &table)),
                    client_token,
                });
            }
            let Some(vpc) = tx.own::<Vpc>(&vpc_id).cloned() else {
                return Err(Kind::Vpc.not_found(&[&vpc_id]));
            };
            if tx.by(&RouteTable::BY_VPC, &vpc_id).count() >= MOST {
                return Err(ApiError::new(
                    ErrorCode::RouteTableLimitExceeded,
                    format!(
                        "The maximum number of route tables, {MOST}, has been reached in {vpc_id}. Delete some first."
                    ),
                ));
            }
            let mut table = new_table(tx, &vpc);
            table.tags = keep_tags(&tags);
            tx.put(table.clone());
            client_tokens::keep(tx, &scope, &client_token, token_id, hash, &table.id);
            tx.audit(json!({ "route_table": table.id, "vpc": vpc_id }));
            tx.event("route-table.created", &table.id);
            Ok(CreateRouteTableResult {
                route_table: Some(tell(tx, &table)),
                client_token,
            })
        })
        .await
}

/// Of the request without what does not change the table.
fn hash(request: &CreateRouteTableRequest) -> String {
    let mut request = request.clone();
    request.client_token.clear();
    request.dry_run = false;
    blake3::hash(&request.encode_to_vec()).to_hex().to_string()
}

pub(super) async fn delete(
    app: &App,
    request: DeleteRouteTableRequest,
) -> Result<DeleteRouteTableResult, ApiError> {
    let id = input::id(Kind::RouteTable, &request.route_table_id, "RouteTableId")?.to_string();
    app.store
        .transact(move |tx| {
            let table = find(tx, &id)?;
            if let Some(association) = table.associations.first() {
                let of = match &association.subnet_id {
                    Some(subnet_id) => format!("it is associated with {subnet_id}. Disassociate it first"),
                    None => format!("it is the main route table of {}", table.vpc_id),
                };
                return Err(ApiError::new(
                    ErrorCode::DependencyViolation,
                    format!("The routeTable '{id}' has dependencies and cannot be deleted: {of}."),
                ));
            }
            tx.remove::<RouteTable>(&id);
            tx.audit(json!({ "route_table": id }));
            tx.event("route-table.deleted", &id);
            Ok(DeleteRouteTableResult {})
        })
        .await
}
