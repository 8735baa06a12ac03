//! CreateSnapshot, and what it has in common with CreateSnapshots.
//! <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateSnapshot.html>

use std::time::Duration;

use hearth_api::v1::{self, CreateSnapshotRequest, TagSpecification};
use hearth_api::{ApiError, ErrorCode, Id, InstanceState, Kind};
use serde_json::json;

use super::describe;
use crate::app::App;
use crate::services::image_disks::limits;
use crate::services::input;
use crate::state::noun::keep_tags;
use crate::state::{
    Contents, Copying, Disk, Encryption, Instance, Known, Pending, Progress, Snapshot, State, Tags, Tx,
    Volume,
};

/// How long a call waits for the host of its volume. The point in time is the call's if the host is that fast.
const FREEZE: Duration = Duration::from_secs(5);

pub(super) async fn create(app: &App, request: CreateSnapshotRequest) -> Result<v1::Snapshot, ApiError> {
    let volume_id = input::id(Kind::Volume, &request.volume_id, "VolumeId")?.to_string();
    let tags = tags(&request.tag_specifications)?;
    let description = request.description;
    let (account_id, config) = (app.account(), app.config.clone());
    let id = app
        .store
        .transact(move |tx| {
            let volume = tx.own::<Volume>(&volume_id).cloned();
            let volume = volume.ok_or_else(|| Kind::Volume.not_found(&[&volume_id]))?;
            limits::has_room(tx, &account_id, &config)?;
            let id = begin(tx, &volume, &description, tags, None)?;
            tx.audit(json!({ "snapshot": id, "volume": volume_id }));
            Ok::<_, ApiError>(id)
        })
        .await?;
    settled(app, std::slice::from_ref(&id)).await;
    let state = app.state();
    let told = state.snapshot(&id).map(|row| describe::tell(&state, row));
    // Somebody has deleted it meanwhile.
    told.ok_or_else(|| Kind::Snapshot.not_found(&[&id]))
}

/// # Errors
/// Bad tags, or tags of something else.
pub(super) fn tags(specifications: &[TagSpecification]) -> Result<Tags, ApiError> {
    let given = input::tags_for(specifications, &[Kind::Snapshot], Kind::Snapshot)?;
    Ok(keep_tags(&given))
}

/// Writes a snapshot of a volume as it is now. Answers its id.
///
/// # Errors
/// The volume goes, or has a pending snapshot.
pub(in crate::services) fn begin(
    tx: &mut Tx<'_>,
    volume: &Volume,
    description: &str,
    tags: Tags,
    set: Option<&str>,
) -> Result<String, ApiError> {
    check(tx, volume)?;
    let row = Snapshot {
        id: Id::new(Kind::Snapshot).to_string(),
        account_id: volume.account_id.clone(),
        region: volume.region.clone(),
        volume_id: volume.id.clone(),
        size_gib: volume.told_gib(),
        description: description.to_owned(),
        contents: match &volume.host_id {
            Some(host_id) if volume.known != Known::AsItBegan => Contents::Pending(Pending {
                host_id: host_id.clone(),
                is_frozen: false,
                percent: 0,
                set: set.map(str::to_owned),
            }),
            // Nothing of it lies anywhere, or nothing but that: it is what it begins with.
            _ => {
                let base = tx.base_of(volume);
                let disk = base.map(|base| Disk {
                    name: base.name.to_owned(),
                    size: base.size,
                    digest: base.digest.to_owned(),
                });
                let own = volume.encryption.as_ref();
                copied(
                    disk,
                    base.and_then(|base| base.encryption),
                    own,
                    &volume.region,
                    tx.now(),
                )
            }
        },
        encryption: volume.encryption.clone(),
        stored: 0,
        started_at: tx.now(),
        is_public: false,
        shared_with: Default::default(),
        deleted: false,
        tags,
    };
    let id = row.id.clone();
    if is_at_rest(tx, volume) && volume.known != Known::AsItBegan {
        tx.update::<Volume>(&volume.id, |volume| volume.known = Known::As(id.clone()));
    }
    let event = match row.is_completed() {
        true => "snapshot.completed",
        false => "snapshot.pending",
    };
    tx.event(event, &id);
    tx.put(row);
    Ok(id)
}

/// Whether no instance runs with a volume.
fn is_at_rest(state: &State, volume: &Volume) -> bool {
    let instance = volume.instance_id().and_then(|id| state.get::<Instance>(id));
    instance.is_none_or(|row| row.state == InstanceState::Stopped)
}

/// The contents of a snapshot of a disk that is there: it is the disk itself, unless that is under another data key.
pub(in crate::services) fn copied(
    disk: Option<Disk>,
    source: Option<&Encryption>,
    own: Option<&Encryption>,
    region: &str,
    now: i64,
) -> Contents {
    match disk {
        Some(disk) if source != own => Contents::Copying(Copying {
            source: disk,
            encryption: source.cloned(),
            region: region.to_owned(),
            percent: 0,
        }),
        disk => Contents::Completed { disk, at: now },
    }
}

fn check(state: &State, volume: &Volume) -> Result<(), ApiError> {
    let id = &volume.id;
    let incorrect = |message: String| Err(ApiError::new(ErrorCode::IncorrectState, message));
    if volume.deleting {
        return incorrect(format!("Volume '{id}' is in the 'deleting' state."));
    }
    if state.storing(id).is_some() {
        return incorrect(format!(
            "Volume '{id}' is moving to another host: wait until it is attached there."
        ));
    }
    if let Some(attachment) = &volume.attachment
        && let Some(instance) = state.get::<Instance>(&attachment.instance_id)
    {
        let of = &instance.id;
        if attachment.delete_on_termination && instance.state == InstanceState::ShuttingDown {
            return incorrect(format!(
                "Volume '{id}' goes with its instance '{of}', which is shutting down."
            ));
        }
        let is_coming =
            attachment.progress == Progress::Attaching || instance.state == InstanceState::Pending;
        if is_coming && !volume.is_made {
            return incorrect(format!(
                "Volume '{id}' is not made yet: wait until it is attached, and its instance '{of}' is running."
            ));
        }
    }
    match state.pending_snapshot(id) {
        None => Ok(()),
        Some(pending) => Err(ApiError::new(
            ErrorCode::ConcurrentSnapshotLimitExceeded,
            format!(
                "The volume '{id}' has a pending snapshot, '{}', and can have one at a time. Wait until it is completed, or \
                 delete it.",
                pending.id
            ),
        )),
    }
}

/// Waits until snapshots hold what is written to their volumes no more, or are given up; not for long, and not for hosts that
/// are away.
pub(in crate::services) async fn settled(app: &App, ids: &[String]) {
    let waits = |state: &State, id: &String| {
        let row = state.get::<Snapshot>(id).filter(|row| !row.is_settled());
        let host = row.and_then(Snapshot::pending).map(|pending| &pending.host_id);
        host.is_some_and(|host| app.sessions.is_connected(host))
    };
    let mut states = app.store.subscribe();
    let settled = states.wait_for(|state| !ids.iter().any(|id| waits(state, id)));
    if tokio::time::timeout(FREEZE, settled).await.is_err() {
        tracing::warn!(snapshots = ?ids, "the host has not said in time that the point in time of snapshots has come");
    }
}
