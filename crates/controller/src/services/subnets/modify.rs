//! ModifySubnetAttribute, DeleteSubnet.

use hearth_api::v1::{
    DeleteSubnetRequest, DeleteSubnetResult, ModifySubnetAttributeRequest, ModifySubnetAttributeResult,
};
use hearth_api::{ApiError, ErrorCode, Kind};
use serde_json::json;

use crate::app::App;
use crate::services::input;
use crate::state::{NetworkInterface, RouteTable, Subnet};

pub(super) async fn modify(
    app: &App,
    request: ModifySubnetAttributeRequest,
) -> Result<ModifySubnetAttributeResult, ApiError> {
    let id = input::id(Kind::Subnet, &request.subnet_id, "SubnetId")?.to_string();
    let asked = request
        .map_public_ip_on_launch
        .ok_or_else(|| ApiError::missing("MapPublicIpOnLaunch"))?;
    app.store
        .transact(move |tx| {
            if !tx.update::<Subnet>(&id, |row| row.map_public_ip_on_launch = asked.value) {
                return Err(Kind::Subnet.not_found(&[&id]));
            }
            tx.audit(json!({ "subnet": id, "map_public_ip_on_launch": asked.value }));
            tx.event("subnet.modified", &id);
            Ok(ModifySubnetAttributeResult {})
        })
        .await
}

/// Its association with a route table goes with it.
pub(super) async fn delete(app: &App, request: DeleteSubnetRequest) -> Result<DeleteSubnetResult, ApiError> {
    let id = input::id(Kind::Subnet, &request.subnet_id, "SubnetId")?.to_string();
    app.store
        .transact(move |tx| {
            if tx.own::<Subnet>(&id).is_none() {
                return Err(Kind::Subnet.not_found(&[&id]));
            }
            if let Some(interface) = tx.first_by(&NetworkInterface::BY_SUBNET, &id) {
                return Err(ApiError::new(
                    ErrorCode::DependencyViolation,
                    format!(
                        "The subnet '{id}' has dependencies and cannot be deleted: the network interface {} is in it. \
                         Terminate its instance first.",
                        interface.id
                    ),
                ));
            }
            if let Some(table) = tx.first_by(&RouteTable::BY_SUBNET, &id) {
                let mut table = table.clone();
                table
                    .associations
                    .retain(|one| one.subnet_id.as_deref() != Some(&id));
                tx.put(table);
            }
            tx.remove::<Subnet>(&id);
            tx.audit(json!({ "subnet": id }));
            tx.event("subnet.deleted", &id);
            Ok(DeleteSubnetResult {})
        })
        .await
}
