//! CopySnapshot. A copy shares what is stored, and is completed at once.
//! <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CopySnapshot.html>

use hearth_api::v1::{CopySnapshotRequest, CopySnapshotResult};
use hearth_api::{ApiError, Id, Kind};
use serde_json::json;

use super::create;
use crate::app::App;
use crate::services::input;
use crate::state::noun::tell_tags;
use crate::state::{Scope, Snapshot, State, Tags, Tx};

pub(super) async fn copy(app: &App, request: CopySnapshotRequest) -> Result<CopySnapshotResult, ApiError> {
    let source_id = input::id(Kind::Snapshot, &request.source_snapshot_id, "SourceSnapshotId")?.to_string();
    let scope = app.scope();
    let given = create::tags(&request.tag_specifications)?;
    let destination = &request.destination_region;
    if !destination.is_empty() && destination != scope.region() {
        let expected = format!(
            "The copy is made in the region that the call is sent to, which is {}.",
            scope.region()
        );
        return Err(ApiError::invalid_value(
            "DestinationRegion",
            destination,
            expected,
        ));
    }
    check_plain(request.encrypted, &request.kms_key_id, &request.source_region)?;
    let (region, description) = (request.source_region, request.description);
    app.store
        .transact(move |tx| {
            let source = source(tx, &scope, &region, &source_id)?.clone();
            let row = copied(tx, &scope, &source, &description, given);
            tx.audit(json!({ "snapshot": row.id, "source": source_id, "source_region": region }));
            Ok(CopySnapshotResult {
                tags: tell_tags(&row.tags),
                snapshot_id: row.id,
            })
        })
        .await
}

/// What copies of snapshots and of images have in common.
///
/// # Errors
/// The copy is to be encrypted, or the region of its source is missing.
pub(in crate::services) fn check_plain(
    encrypted: Option<bool>,
    kms_key_id: &str,
    source_region: &str,
) -> Result<(), ApiError> {
    if encrypted.unwrap_or(false) {
        let expected = "Nothing can be encrypted in this version; leave it out.";
        return Err(ApiError::invalid_value("Encrypted", true, expected));
    }
    if !kms_key_id.is_empty() {
        let expected = "There are no keys in this version; leave it out.";
        return Err(ApiError::invalid_value("KmsKeyId", kms_key_id, expected));
    }
    match source_region {
        "" => Err(ApiError::missing("SourceRegion")),
        _ => Ok(()),
    }
}

/// A completed snapshot in some region that the caller may use.
///
/// # Errors
/// `InvalidParameterValue` for a region that is not there, `InvalidSnapshot.NotFound`, `IncorrectState`.
fn source<'s>(state: &'s State, scope: &Scope, region: &str, id: &str) -> Result<&'s Snapshot, ApiError> {
    if state.region(region).is_none() {
        let expected = "There is no such region; DescribeRegions tells those that there are.";
        return Err(ApiError::invalid_value("SourceRegion", region, expected));
    }
    let account = scope.account_id();
    let is_there = |row: &&Snapshot| {
        let may_use = row.account_id == account || row.is_public || row.shared_with.contains(account);
        row.region == region && !row.deleted && may_use
    };
    let found = state.of_anybody::<Snapshot>(id).filter(is_there);
    let row = found.ok_or_else(|| Kind::Snapshot.not_found(&[id]))?;
    super::check_completed(row)?;
    Ok(row)
}

/// Writes a copy into an account and region.
pub(in crate::services) fn copied(
    tx: &mut Tx<'_>,
    scope: &Scope,
    source: &Snapshot,
    description: &str,
    tags: Tags,
) -> Snapshot {
    let now = tx.now();
    let id = Id::new(Kind::Snapshot);
    let row = Snapshot {
        description: description.to_owned(),
        tags,
        ..Snapshot::of_disk(&id, scope, source.disk().cloned(), source.size_gib, now)
    };
    tx.put(row.clone());
    tx.event("snapshot.completed", &row.id);
    row
}
