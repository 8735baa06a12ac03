//! DeleteVpc.

use hearth_api::v1::{DeleteVpcRequest, DeleteVpcResult};
use hearth_api::{ApiError, ErrorCode, Kind};
use serde_json::json;

use crate::app::App;
use crate::services::input;
use crate::state::{RouteTable, SecurityGroup, State, Subnet, Vpc};
use crate::store::bootstrap::DEFAULT_GROUP;

/// What a VPC was made with goes with it.
pub(super) async fn delete(app: &App, request: DeleteVpcRequest) -> Result<DeleteVpcResult, ApiError> {
    let id = input::id(Kind::Vpc, &request.vpc_id, "VpcId")?.to_string();
    app.store
        .transact(move |tx| {
            if tx.own::<Vpc>(&id).is_none() {
                return Err(Kind::Vpc.not_found(&[&id]));
            }
            if let Some(left) = left(tx, &id) {
                return Err(ApiError::new(
                    ErrorCode::DependencyViolation,
                    format!("The vpc '{id}' has dependencies and cannot be deleted: it has {left}. Delete it first."),
                ));
            }
            let groups: Vec<String> = tx
                .by(&SecurityGroup::BY_VPC, &id)
                .map(|group| group.id.clone())
                .collect();
            tx.remove_all::<SecurityGroup>(groups);
            let tables: Vec<String> = tx.by(&RouteTable::BY_VPC, &id).map(|table| table.id.clone()).collect();
            tx.remove_all::<RouteTable>(tables);
            tx.remove::<Vpc>(&id);
            tx.audit(json!({ "vpc": id }));
            tx.event("vpc.deleted", &id);
            Ok(DeleteVpcResult {})
        })
        .await
}

/// Something in a VPC that it was not made with. Interfaces are in subnets.
fn left(state: &State, id: &str) -> Option<String> {
    let subnet = state.first_by(&Subnet::BY_VPC, id).map(|subnet| &subnet.id);
    let gateway = || state.gateway_of(id).map(|gateway| &gateway.id);
    let table = || {
        let mut tables = state.by(&RouteTable::BY_VPC, id);
        let further = tables.find(|table| table.main_association().is_none());
        further.map(|table| &table.id)
    };
    let group = || {
        let mut groups = state.by(&SecurityGroup::BY_VPC, id);
        let further = groups.find(|group| group.name != DEFAULT_GROUP);
        further.map(|group| &group.id)
    };
    subnet.or_else(gateway).or_else(table).or_else(group).cloned()
}
