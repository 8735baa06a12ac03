//! Snapshots of volumes: made, copied, shared, deleted, described. Their states: `docs/states.md`.
//! <https://docs.aws.amazon.com/ebs/latest/userguide/ebs-snapshots.html>

use hearth_api::{ApiError, ErrorCode, Kind};

use super::serve;
use crate::state::{Contents, Snapshot, State};

mod attributes;
pub(super) mod copy;
mod create;
mod delete;
pub(super) mod describe;
mod set;

pub(super) use create::{begin, settled};
pub(super) use delete::delete_in;

serve! { snapshots_server::Snapshots as Snapshots {
    create_snapshot(CreateSnapshotRequest) -> Snapshot: create::create;
    create_snapshots(CreateSnapshotsRequest) -> CreateSnapshotsResult: set::create;
    describe_snapshots(DescribeSnapshotsRequest) -> DescribeSnapshotsResult: describe::describe;
    delete_snapshot(DeleteSnapshotRequest) -> DeleteSnapshotResponse: delete::delete;
    copy_snapshot(CopySnapshotRequest) -> CopySnapshotResult: copy::copy;
    describe_snapshot_attribute(DescribeSnapshotAttributeRequest) -> DescribeSnapshotAttributeResult: attributes::describe;
    modify_snapshot_attribute(ModifySnapshotAttributeRequest) -> ModifySnapshotAttributeResponse: attributes::modify;
    reset_snapshot_attribute(ResetSnapshotAttributeRequest) -> ResetSnapshotAttributeResponse: attributes::reset;
} }

/// A snapshot of the caller's own.
///
/// # Errors
/// `AuthFailure`: it is another account's. `InvalidSnapshot.NotFound`.
pub(super) fn own<'s>(state: &'s State, id: &str) -> Result<&'s Snapshot, ApiError> {
    state
        .snapshot(id)
        .ok_or_else(|| Kind::Snapshot.not_found(&[id]))?;
    state.own(id).ok_or_else(|| {
        ApiError::new(
            ErrorCode::AuthFailure,
            format!("Not authorized for snapshot:{id}. Its owner alone may do this."),
        )
    })
}

/// A snapshot that volumes can be made from.
///
/// # Errors
/// `InvalidSnapshot.NotFound`; `IncorrectState`: it is not completed.
pub(super) fn usable<'s>(state: &'s State, id: &str) -> Result<&'s Snapshot, ApiError> {
    let found = state.snapshot(id);
    let row = found.ok_or_else(|| Kind::Snapshot.not_found(&[id]))?;
    check_completed(row)?;
    Ok(row)
}

/// # Errors
/// `IncorrectState`.
fn check_completed(row: &Snapshot) -> Result<(), ApiError> {
    let id = &row.id;
    let message = match &row.contents {
        Contents::Completed { .. } => return Ok(()),
        Contents::Pending(_) | Contents::Copying(_) => {
            format!("Snapshot '{id}' is not 'completed': it is pending. Wait until it is completed.")
        }
        Contents::Error { message } => {
            format!("Snapshot '{id}' is not 'completed': it is in error. {message}")
        }
    };
    Err(ApiError::new(ErrorCode::IncorrectState, message))
}
