//! Start, stop, reboot, terminate: a batch changes as a whole, or not at all.

use std::sync::Arc;

use hearth_api::v1::InstanceStateChange;
use hearth_api::{ApiError, ErrorCode, Kind};
use serde_json::json;

use super::start;
use crate::app::App;
use crate::lifecycle::{Command, Hold, Observed, apply, observe};
use crate::services::input;
use crate::state::{Instance, Tx};

pub(super) async fn apply_to_all(
    app: &Arc<App>,
    ids: &[String],
    command: Command,
) -> Result<Vec<InstanceStateChange>, ApiError> {
    // As EC2 refuses this one call.
    if command == Command::Terminate && ids.is_empty() {
        return Err(ApiError::new(
            ErrorCode::InvalidParameterCombination,
            "No instances specified",
        ));
    }
    let ids = input::ids(Kind::Instance, ids, "InstanceId")?;
    let shared = Arc::clone(app);
    app.store
        .transact(move |tx| {
            input::all_known(Kind::Instance, &ids, |id| tx.get::<Instance>(id).is_some())?;
            let mut changes = Vec::new();
            for id in &ids {
                changes.extend(apply_to(&shared, tx, id, command)?);
            }
            let force = command == Command::Stop { force: true };
            tx.audit(json!({ "instances": ids, "force": force }));
            Ok(changes)
        })
        .await
}

/// # Errors
/// The instance is protected from the command.
fn check_protection(row: &Instance, command: Command) -> Result<(), ApiError> {
    let (done, attribute) = match command {
        Command::Terminate if row.disable_api_termination => ("terminated", "disableApiTermination"),
        Command::Stop { .. } if row.disable_api_stop => ("stopped", "disableApiStop"),
        _ => return Ok(()),
    };
    Err(ApiError::new(
        ErrorCode::OperationNotPermitted,
        format!(
            "The instance '{}' may not be {done}. Modify its '{attribute}' instance attribute and try again.",
            row.id
        ),
    ))
}

fn apply_to(
    app: &App,
    tx: &mut Tx<'_>,
    id: &str,
    command: Command,
) -> Result<Option<InstanceStateChange>, ApiError> {
    let Some(row) = tx.get::<Instance>(id).cloned() else {
        return Ok(None);
    };
    check_protection(&row, command)?;
    let change = apply(&row.lifecycle(), command, id)?;
    if let Some(change) = &change {
        if change.hold == Hold::TakeCompute {
            start::take_compute(app, tx, &row)?;
        }
        tx.change_instance(id, change);
        start::tell_moves(tx, id);
    }
    // A host that was forgotten says nothing any more.
    let homeless = tx
        .get::<Instance>(id)
        .filter(|_| tx.incarnation(id).is_none())
        .cloned();
    if let Some(end) = homeless.and_then(|row| observe(&row.lifecycle(), &Observed::gone())) {
        tx.change_instance(id, &end);
    }
    let current = tx.get::<Instance>(id).map_or(row.state, |row| row.state);
    Ok(Some(InstanceStateChange {
        instance_id: id.to_owned(),
        current_state: Some(current.into()),
        previous_state: Some(row.state.into()),
    }))
}
