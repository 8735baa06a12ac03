//! ModifyInstanceMaintenanceOptions: whether an instance whose host restarts is started again.

use hearth_api::v1::{ModifyInstanceMaintenanceOptionsRequest, ModifyInstanceMaintenanceOptionsResult};
use hearth_api::{ApiError, ErrorCode, InstanceState, Kind};
use serde_json::json;

use crate::app::App;
use crate::services::{Failure, commit, input};
use crate::store::instances::{self, AUTO_RECOVERY_DEFAULT, AUTO_RECOVERY_DISABLED};

pub(super) async fn modify(
    app: &App,
    request: ModifyInstanceMaintenanceOptionsRequest,
) -> Result<ModifyInstanceMaintenanceOptionsResult, Failure> {
    let ModifyInstanceMaintenanceOptionsRequest {
        instance_id,
        auto_recovery,
        dry_run,
    } = request;
    if auto_recovery.is_empty() {
        return Err(ApiError::missing("AutoRecovery").into());
    }
    check_auto_recovery(&auto_recovery)?;
    let ids = input::ids(Kind::Instance, &[instance_id.as_str().to_owned()], "InstanceId")?;
    let mut tx = app.store.write().await?;
    let rows = instances::by_ids(tx.connection(), &ids).await?;
    let Some(row) = rows.first() else {
        return Err(Kind::Instance.not_found(&[&instance_id]).into());
    };
    if matches!(
        row.state(),
        InstanceState::ShuttingDown | InstanceState::Terminated
    ) {
        return Err(ApiError::new(
            ErrorCode::IncorrectInstanceState,
            format!(
                "The instance '{instance_id}' is {} and has no maintenance options any more.",
                row.state()
            ),
        )
        .into());
    }
    if row.auto_recovery != auto_recovery {
        instances::set_auto_recovery(&mut tx, row, &auto_recovery).await?;
    }
    tx.audit(
        "ModifyInstanceMaintenanceOptions",
        &json!({ "instance": instance_id, "auto_recovery": auto_recovery }),
    )
    .await?;
    commit(tx, dry_run).await?;
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
