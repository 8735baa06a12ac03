//! Keys under which disks lie encrypted on hosts. A host gets those of its own volumes, and of what its instances' volumes begin
//! with.

use hearth_api::InstanceState;
use hearth_api::agent::DiskKey;
use hearth_log::chain;
use tonic::Status;

use super::{is_needed_by, users};
use crate::app::App;
use crate::keys::{self, KeyError};
use crate::state::{Encryption, Instance, State, Volume};

/// # Errors
/// `NOT_FOUND`: it is not encrypted, or not the host's. `FAILED_PRECONDITION`: its KMS key cannot be used.
pub(super) fn of_host(app: &App, host_id: &str, id: &str) -> Result<DiskKey, Status> {
    let state = app.store.state();
    let (encryption, region, goes_on) = found(&state, host_id, id).ok_or_else(|| {
        Status::not_found(format!(
            "{id:.40} is not encrypted, or nothing that host {host_id} has"
        ))
    })?;
    if !goes_on {
        keys::usable(&state, encryption, region).map_err(|error| refused(&error))?;
    }
    let opened = keys::open(&state, &app.vault, encryption, region);
    let opened = opened.map_err(|error| refused(&error))?;
    Ok(DiskKey { key: opened.to_vec() })
}

/// What is encrypted, its region, and whether an instance runs with it: it goes on, whatever becomes of the KMS key.
fn found<'s>(state: &'s State, host_id: &str, id: &str) -> Option<(&'s Encryption, &'s str, bool)> {
    let runs = |instance: &str| {
        let row = state.get::<Instance>(instance);
        row.is_some_and(|row| row.state == InstanceState::Running)
    };
    if let Some(volume) = state.get::<Volume>(id) {
        let own = Some(volume).filter(|volume| volume.host_id.as_deref() == Some(host_id))?;
        let goes_on = own.instance_id().is_some_and(runs) && own.is_made;
        return Some((own.encryption.as_ref()?, &own.region, goes_on));
    }
    if !is_needed_by(state, id, host_id) {
        return None;
    }
    let base = state.base(id)?;
    let goes_on = users(state, id, host_id).any(runs);
    Some((base.encryption?, base.region, goes_on))
}

/// What a host is told.
pub(super) fn refused(error: &KeyError) -> Status {
    match error {
        KeyError::Gone(_) | KeyError::State { .. } => Status::failed_precondition(error.to_string()),
        KeyError::Broken(_) => {
            tracing::error!(error = %chain(error), "opening a data key");
            Status::internal("the key cannot be opened; the control plane's log says why")
        }
    }
}
