//! ModifyInstanceMaintenanceOptions: whether an instance whose host restarts is started again.

use hearth_api::v1::{ModifyInstanceMaintenanceOptionsRequest, ModifyInstanceMaintenanceOptionsResult};
use hearth_api::{ApiError, ErrorCode, InstanceState, Kind};
use serde_json::json;

use crate::app::App;
use crate::services::input;
use crate::state::{AUTO_RECOVERY_DEFAULT, AUTO_RECOVERY_DISABLED, Instance, Tx};

pub(super) async fn modify(
    app: &App,
    request: ModifyInstanceMaintenanceOptionsRequest,
) -> Result<ModifyInstanceMaintenanceOptionsResult, ApiError> {
    if request.auto_recovery.is_empty() {
        return Err(ApiError::missing("AutoRecovery"));
    }
    check_auto_recovery(&request.auto_recovery)?;
    input::id(Kind::Instance, &request.instance_id, "InstanceId")?;
    app.store.transact(move |tx| set(tx, request)).await
}

fn set(
    tx: &mut Tx<'_>,
    request: ModifyInstanceMaintenanceOptionsRequest,
) -> Result<ModifyInstanceMaintenanceOptionsResult, ApiError> {
    let ModifyInstanceMaintenanceOptionsRequest {
        instance_id,
        auto_recovery,
        ..
    } = request;
    let Some(row) = tx.get::<Instance>(&instance_id).cloned() else {
        return Err(Kind::Instance.not_found(&[&instance_id]));
    };
    if matches!(row.state, InstanceState::ShuttingDown | InstanceState::Terminated) {
        return Err(ApiError::new(
            ErrorCode::IncorrectInstanceState,
            format!(
                "The instance '{instance_id}' is {} and has no maintenance options any more.",
                row.state
            ),
        ));
    }
    if row.auto_recovery != auto_recovery {
        tx.event("instance.modified", &instance_id);
        tx.put(Instance {
            auto_recovery: auto_recovery.clone(),
            ..row
        });
    }
    tx.audit(json!({ "instance": instance_id, "auto_recovery": auto_recovery }));
    Ok(ModifyInstanceMaintenanceOptionsResult {
        instance_id,
        auto_recovery,
    })
}

/// # Errors
/// It is neither of EC2's two values.
pub(super) fn check_auto_recovery(value: &str) -> Result<(), ApiError> {
    if [AUTO_RECOVERY_DEFAULT, AUTO_RECOVERY_DISABLED].contains(&value) {
        return Ok(());
    }
    Err(ApiError::invalid_value(
        "AutoRecovery",
        value,
        "Expecting default or disabled.",
    ))
}
