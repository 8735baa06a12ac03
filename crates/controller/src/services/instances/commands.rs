//! Start, stop, reboot, terminate: a batch changes as a whole, or not at all.

use std::collections::HashMap;

use hearth_api::Kind;
use hearth_api::v1::{InstanceStateChange, InstanceStateChanges};
use serde_json::json;

use super::start;
use crate::app::App;
use crate::lifecycle::{Command, Hold, apply};
use crate::services::{Failure, commit, input};
use crate::store::instances::{self, InstanceRow};

pub(super) async fn apply_to_all(
    app: &App,
    action: &str,
    ids: &[String],
    command: Command,
    dry_run: bool,
) -> Result<InstanceStateChanges, Failure> {
    let ids = input::ids(Kind::Instance, ids, "InstanceId")?;
    let mut tx = app.store.write().await?;
    let rows = instances::by_ids(tx.connection(), &ids).await?;
    let mut rows: HashMap<String, InstanceRow> = rows.into_iter().map(|row| (row.id.clone(), row)).collect();
    let missing: Vec<&String> = ids.iter().filter(|id| !rows.contains_key(*id)).collect();
    if !missing.is_empty() {
        return Err(Kind::Instance.not_found(&missing).into());
    }
    let mut changes = Vec::new();
    for id in &ids {
        let Some(row) = rows.remove(id) else { continue };
        let before = row.lifecycle();
        let change = apply(&before, command, id)?;
        let current = change.as_ref().map_or(before.state, |change| change.next.state);
        if let Some(change) = change {
            if change.hold == Hold::TakeCompute {
                start::take_compute(app, tx.connection(), &row).await?;
            }
            instances::write_change(&mut tx, &row, &change).await?;
        }
        changes.push(InstanceStateChange {
            instance_id: id.clone(),
            current_state: Some(current.into()),
            previous_state: Some(before.state.into()),
        });
    }
    let force = command == Command::Stop { force: true };
    tx.audit(action, &json!({ "instances": ids, "force": force }))
        .await?;
    commit(tx, dry_run).await?;
    Ok(InstanceStateChanges { changes })
}
