//! The disk that volumes take on a host.

use hearth_api::{ApiError, ErrorCode};

use crate::state::{HostReport, State};

/// # Errors
/// `InsufficientVolumeCapacity`: a host has not so many GiB left.
pub(super) fn check(state: &State, host_id: &str, gib: u64) -> Result<(), ApiError> {
    let report = state.get::<HostReport>(host_id);
    let total = report.map_or(0, |report| report.disk_bytes >> 30);
    let taken = state.gib_on(host_id);
    let free = total.saturating_sub(taken);
    if gib <= free {
        return Ok(());
    }
    Err(ApiError::new(
        ErrorCode::InsufficientVolumeCapacity,
        format!(
            "There is not enough capacity to fulfill your EBS volume provision request: the instance's host has {free} GiB \
             left for volumes, and {gib} are needed. Delete volumes, or use an instance on another host."
        ),
    ))
}
