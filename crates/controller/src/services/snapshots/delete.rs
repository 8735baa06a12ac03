//! DeleteSnapshot. Volumes that were made from it go on; the janitor removes what it holds when the last of them is gone.

use hearth_api::v1::{DeleteSnapshotRequest, DeleteSnapshotResponse};
use hearth_api::{ApiError, Kind};
use serde_json::json;

use crate::app::App;
use crate::services::input;
use crate::state::{Snapshot, Tags};

pub(super) async fn delete(
    app: &App,
    request: DeleteSnapshotRequest,
) -> Result<DeleteSnapshotResponse, ApiError> {
    let id = input::id(Kind::Snapshot, &request.snapshot_id, "SnapshotId")?.to_string();
    app.store
        .transact(move |tx| {
            let row = super::own(tx, &id)?.clone();
            if row.is_completed() {
                tx.put(Snapshot {
                    deleted: true,
                    tags: Tags::new(),
                    ..row
                });
            } else {
                // Its host stores it no longer.
                tx.remove::<Snapshot>(&id);
            }
            tx.audit(json!({ "snapshot": id }));
            tx.event("snapshot.deleted", &id);
            Ok(DeleteSnapshotResponse {})
        })
        .await
}
