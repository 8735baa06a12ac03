//! CopySnapshot. A copy shares what is stored, and is completed at once; unless it is under another data key: then it is pending
//! while the control plane writes it anew ([`crate::copies`]).
//! <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CopySnapshot.html>

use std::sync::Arc;

use hearth_api::v1::{CopySnapshotRequest, CopySnapshotResult};
use hearth_api::{ApiError, Id, Kind};
use serde_json::json;

use super::create;
use crate::app::App;
use crate::services::encryption::{self, Asked, Wanted};
use crate::services::input;
use crate::state::noun::tell_tags;
use crate::state::{Encryption, Noun as _, Scope, Snapshot, State, Tags, Tx};

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
    if request.source_region.is_empty() {
        return Err(ApiError::missing("SourceRegion"));
    }
    let vault = Arc::clone(&app.vault);
    let (region, description) = (request.source_region, request.description);
    let (encrypted, kms_key_id) = (request.encrypted, request.kms_key_id);
    app.store
        .transact(move |tx| {
            let source = source(tx, &scope, &region, &source_id)?.clone();
            let asked = Asked {
                encrypted,
                kms_key_id: &kms_key_id,
            };
            let wanted = wanted(tx, &scope, &source, asked)?;
            let encryption = wanted.make(tx, &vault, &scope)?;
            let row = copied(tx, &scope, &source, encryption, &description, given);
            tx.audit(json!({ "snapshot": row.id, "source": source_id, "source_region": region }));
            Ok(CopySnapshotResult {
                tags: tell_tags(&row.tags),
                snapshot_id: row.id,
            })
        })
        .await
}

/// What a copy is to be encrypted under.
///
/// # Errors
/// As [`encryption::wanted`].
pub(in crate::services) fn wanted(
    state: &State,
    scope: &Scope,
    source: &Snapshot,
    asked: Asked<'_>,
) -> Result<Wanted, ApiError> {
    let of = source.encryption.as_ref();
    match source.region == scope.region() {
        true => encryption::wanted(state, scope, asked, of),
        false => encryption::wanted_abroad(state, scope, asked, of.map(|of| (of, source.region.as_str()))),
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
    let is_there = |row: &&Snapshot| row.region == region && !row.deleted && row.is_usable_by(account);
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
    encryption: Option<Encryption>,
    description: &str,
    tags: Tags,
) -> Snapshot {
    let now = tx.now();
    let id = Id::new(Kind::Snapshot);
    let disk = source.disk().cloned();
    let contents = create::copied(
        disk,
        source.encryption.as_ref(),
        encryption.as_ref(),
        &source.region,
        now,
    );
    let row = Snapshot {
        description: description.to_owned(),
        contents,
        encryption,
        tags,
        ..Snapshot::of_disk(&id, scope, None, source.size_gib, now)
    };
    let event = match row.is_completed() {
        true => "snapshot.completed",
        false => "snapshot.pending",
    };
    tx.event(event, &row.id);
    tx.put(row.clone());
    row
}
