//! DeleteSnapshot. Volumes that were made from it go on; the janitor removes what it holds when the last of them is gone.

use hearth_api::v1::{DeleteSnapshotRequest, DeleteSnapshotResponse};
use hearth_api::{ApiError, ErrorCode, Kind};
use serde_json::json;

use crate::app::App;
use crate::services::input;
use crate::state::{Image, Snapshot, State, Tags, Tx};

pub(super) async fn delete(
    app: &App,
    request: DeleteSnapshotRequest,
) -> Result<DeleteSnapshotResponse, ApiError> {
    let id = input::id(Kind::Snapshot, &request.snapshot_id, "SnapshotId")?.to_string();
    app.store
        .transact(move |tx| {
            delete_in(tx, &id)?;
            tx.audit(json!({ "snapshot": id }));
            Ok(DeleteSnapshotResponse {})
        })
        .await
}

/// # Errors
/// It is not there, is another account's, or an image is made of it.
pub(in crate::services) fn delete_in(tx: &mut Tx<'_>, id: &str) -> Result<(), ApiError> {
    let row = super::own(tx, id)?.clone();
    check_unused(tx, id)?;
    if row.is_completed() {
        tx.put(Snapshot {
            deleted: true,
            tags: Tags::new(),
            ..row
        });
    } else {
        // Its host stores it no longer.
        tx.remove_snapshot(id);
    }
    tx.event("snapshot.deleted", id);
    Ok(())
}

/// # Errors
/// `InvalidSnapshot.InUse`: a registered image is made of it, whoever that belongs to.
fn check_unused(state: &State, id: &str) -> Result<(), ApiError> {
    let whole = state.whole();
    let image = whole
        .by(&Image::BY_SNAPSHOT, id)
        .find(|image| image.is_registered());
    match image {
        None => Ok(()),
        Some(image) => Err(ApiError::new(
            ErrorCode::InvalidSnapshotInUse,
            format!(
                "The snapshot {id} is currently in use by {}. Deregister the image first.",
                image.id
            ),
        )),
    }
}
