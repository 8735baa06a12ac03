//! Volumes that are wanted on another host than the one where they lie.

use hearth_api::{ApiError, ErrorCode};

use crate::app::App;
use crate::state::{State, Volume};

/// Why a volume cannot leave its host; `None`: it can.
pub(in crate::services) fn obstacle(app: &App, state: &State, volume: &Volume) -> Option<String> {
    let host = volume.host_id.as_ref()?;
    (!app.sessions.is_connected(host) && !state.is_stored(volume)).then(|| {
        format!(
            "The volume '{}' lies on the host {host}, which is not connected, and what it holds is stored nowhere else. \
             Connect the host, or make another volume of a snapshot of it.",
            volume.id
        )
    })
}

/// # Errors
/// `UnsupportedOperation`: the volume cannot leave its host. `IncorrectState`: the host has an old copy of it.
pub(super) fn check(app: &App, state: &State, volume: &Volume, host_id: &str) -> Result<(), ApiError> {
    if let Some(obstacle) = obstacle(app, state, volume) {
        return Err(ApiError::new(ErrorCode::UnsupportedOperation, obstacle));
    }
    if state.old_copy(&volume.id, host_id).is_some() {
        return Err(ApiError::new(
            ErrorCode::IncorrectState,
            format!(
                "The host {host_id} has not erased yet what it had of the volume '{}' before: try again soon.",
                volume.id
            ),
        ));
    }
    Ok(())
}
