//! DeleteVolume: the volume goes when its host has erased it, and at once where nothing of it lies anywhere.

use hearth_api::v1::{DeleteVolumeRequest, DeleteVolumeResult};
use hearth_api::{ApiError, ErrorCode, Kind};
use serde_json::json;

use crate::app::App;
use crate::services::input;
use crate::state::Volume;

/// Deleting it again is no error.
pub(super) async fn delete(app: &App, request: DeleteVolumeRequest) -> Result<DeleteVolumeResult, ApiError> {
    let id = input::id(Kind::Volume, &request.volume_id, "VolumeId")?.to_string();
    app.store
        .transact(move |tx| {
            let Some(row) = tx.get::<Volume>(&id).cloned() else {
                return Err(Kind::Volume.not_found(&[&id]));
            };
            if let Some(instance) = row.instance_id() {
                return Err(ApiError::new(
                    ErrorCode::VolumeInUse,
                    format!("Volume {id} is currently attached to {instance}"),
                ));
            }
            if row.host_id.is_none() {
                tx.remove_volume(&id);
            } else if !row.deleting {
                tx.update::<Volume>(&id, |row| row.deleting = true);
                tx.event("volume.deleting", &id);
            }
            tx.audit(json!({ "volume": id }));
            Ok(DeleteVolumeResult {})
        })
        .await
}
