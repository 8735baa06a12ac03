//! ModifyVolume. The volume is of the target at once; a size is told when the instance that runs with it has it.
//! <https://docs.aws.amazon.com/ebs/latest/userguide/ebs-modify-volume.html>

use hearth_api::v1::{ModifyVolumeRequest, ModifyVolumeResult};
use hearth_api::{ApiError, ErrorCode, InstanceState, Kind};
use serde_json::json;

use super::devices::Slot;
use super::{create, modifications, quotas, room};
use crate::app::App;
use crate::catalog::volume_types::{VolumeSpec, VolumeType};
use crate::services::input;
use crate::state::{Instance, Modification, ModificationState, State, Tx, Volume};
use crate::views;

/// Modifications of a volume within [`DAY`].
const MOST: usize = 4;
/// Milliseconds.
const DAY: i64 = 24 * 3600 * 1000;

pub(super) async fn modify(app: &App, request: ModifyVolumeRequest) -> Result<ModifyVolumeResult, ApiError> {
    let id = input::id(Kind::Volume, &request.volume_id, "VolumeId")?.to_string();
    if request.multi_attach_enabled.unwrap_or(false) {
        return Err(create::no_multi_attach());
    }
    let volume_type = match request.volume_type.as_str() {
        "" => None,
        name => Some(VolumeType::parse(name)?),
    };
    let is_empty = volume_type.is_none()
        && request.size.is_none()
        && request.iops.is_none()
        && request.throughput.is_none()
        && request.multi_attach_enabled.is_none();
    if is_empty {
        return Err(ApiError::missing("size, volumeType, iops or throughput"));
    }
    app.store
        .transact(move |tx| {
            let Some(volume) = tx.get::<Volume>(&id).cloned() else {
                return Err(Kind::Volume.not_found(&[&id]));
            };
            if tx.storing(&id).is_some() {
                let message =
                    format!("Volume '{id}' is moving to another host. Modify it when it is attached.");
                return Err(ApiError::new(ErrorCode::IncorrectState, message));
            }
            let earlier = check_state(&volume, tx.now())?;
            let target = volume
                .spec
                .modified(volume_type, request.size, request.iops, request.throughput)?;
            check_target(tx, &volume, &target)?;
            let volume = begin(tx, volume, target, earlier);
            tx.put(volume.clone());
            tx.event("volume.modifying", &id);
            tx.audit(json!({ "volume": id, "target": target }));
            Ok(ModifyVolumeResult {
                volume_modification: modifications::tell(&volume),
            })
        })
        .await
}

/// When the modifications of the last day were started.
///
/// # Errors
/// The volume cannot be modified now.
fn check_state(volume: &Volume, now: i64) -> Result<Vec<i64>, ApiError> {
    let id = &volume.id;
    if volume.deleting {
        let message = format!("Volume '{id}' is in the 'deleting' state and cannot be modified.");
        return Err(ApiError::new(ErrorCode::IncorrectState, message));
    }
    if volume.is_modifying() {
        return Err(ApiError::new(
            ErrorCode::IncorrectModificationState,
            format!("Volume '{id}' is being modified. Wait until the modification is completed."),
        ));
    }
    let Some(last) = &volume.modification else {
        return Ok(Vec::new());
    };
    let mut starts: Vec<i64> = last.earlier.iter().copied().chain([last.started_at]).collect();
    starts.retain(|start| *start > now - DAY);
    match starts.first() {
        Some(oldest) if starts.len() >= MOST => Err(ApiError::new(
            ErrorCode::VolumeModificationRateExceeded,
            format!(
                "You've reached the maximum modification rate per volume limit: {MOST} within 24 hours. The volume '{id}' \
                 can be modified again after {}.",
                views::time(oldest + DAY)
            ),
        )),
        _ => Ok(starts),
    }
}

/// # Errors
/// There is no room for it, or it cannot be a root volume any more.
fn check_target(state: &State, volume: &Volume, target: &VolumeSpec) -> Result<(), ApiError> {
    quotas::check(state, &volume.scope(), [*target], Some(&volume.spec))?;
    let attachment = volume.attachment.as_ref();
    let is_root = attachment.is_some_and(|a| Slot::of(&a.device).is_some_and(|slot| slot.is_root()));
    if is_root && !target.volume_type.boots() {
        let kind = target.volume_type.as_str();
        let expected = format!(
            "{kind} volumes cannot be boot volumes, and '{}' is one.",
            volume.id
        );
        return Err(ApiError::invalid_value("VolumeType", kind, expected));
    }
    let more = target.size_gib.saturating_sub(volume.spec.size_gib);
    match &volume.host_id {
        Some(host) if more > 0 => room::check(state, host, more),
        _ => Ok(()),
    }
}

fn begin(tx: &Tx<'_>, volume: Volume, target: VolumeSpec, earlier: Vec<i64>) -> Volume {
    let now = tx.now();
    let instance = volume.instance_id().and_then(|id| tx.get::<Instance>(id));
    let runs =
        instance.is_some_and(|row| !matches!(row.state, InstanceState::Stopped | InstanceState::Terminated));
    // Nobody else sees the size.
    let waits = runs && target.size_gib > volume.spec.size_gib;
    let modification = Modification {
        state: match waits {
            true => ModificationState::Modifying,
            false => ModificationState::Completed,
        },
        original: volume.spec,
        target,
        started_at: now,
        ended_at: (!waits).then_some(now),
        message: String::new(),
        earlier,
    };
    Volume {
        spec: target,
        modification: Some(modification),
        ..volume
    }
}
