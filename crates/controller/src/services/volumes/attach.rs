//! AttachVolume, DetachVolume. A running instance gets and loses volumes as its host says, and those of other hosts when they
//! have come; any other one at once.
//! <https://docs.aws.amazon.com/ebs/latest/userguide/ebs-attaching-volume.html>

use std::sync::Arc;

use hearth_api::v1::{AttachVolumeRequest, DetachVolumeRequest, VolumeAttachment};
use hearth_api::{ApiError, ErrorCode, InstanceState, Kind};
use serde_json::json;

use super::devices::{self, Slot};
use super::{describe, moving, room};
use crate::app::App;
use crate::keys;
use crate::services::images::devices::virtual_name;
use crate::services::input;
use crate::state::{Attachment, Instance, Progress, State, StoreDisk, Tx, Volume};

pub(super) async fn attach(
    app: &Arc<App>,
    request: AttachVolumeRequest,
) -> Result<VolumeAttachment, ApiError> {
    let volume_id = input::id(Kind::Volume, &request.volume_id, "VolumeId")?.to_string();
    let instance_id = input::id(Kind::Instance, &request.instance_id, "InstanceId")?.to_string();
    if request.device.is_empty() {
        return Err(ApiError::missing("device"));
    }
    let slot = devices::slot(&request.device)?;
    let device = slot.name(&request.device);
    let shared = Arc::clone(app);
    app.store
        .transact(move |tx| {
            let (instance, mut volume) = (instance(tx, &instance_id)?, volume(tx, &volume_id)?);
            check_volume(tx, &volume, &instance)?;
            let progress = check_instance(&instance, &slot)?;
            check_device(tx, &instance, &slot, &device)?;
            check_place(&shared, tx, &volume, &instance)?;
            volume.epoch += 1;
            volume.attachment = Some(Attachment {
                epoch: volume.epoch,
                progress,
                ..Attachment::first(&instance_id, &device, false, tx.now())
            });
            tx.put(volume);
            place(tx, &volume_id, &instance);
            tx.event("volume.attaching", &volume_id);
            tx.audit(json!({ "volume": volume_id, "instance": instance_id, "device": device }));
            told(tx, &self::volume(tx, &volume_id)?)
        })
        .await
}

fn told(state: &State, volume: &Volume) -> Result<VolumeAttachment, ApiError> {
    let told = describe::attachment(state, volume);
    told.ok_or_else(|| ApiError::new(ErrorCode::InternalError, "An attachment without an instance."))
}

fn instance(state: &State, id: &str) -> Result<Instance, ApiError> {
    let found = state.get::<Instance>(id).cloned();
    found.ok_or_else(|| Kind::Instance.not_found(&[id]))
}

fn volume(state: &State, id: &str) -> Result<Volume, ApiError> {
    let found = state.get::<Volume>(id).cloned();
    found.ok_or_else(|| Kind::Volume.not_found(&[id]))
}

fn incorrect(message: String) -> ApiError {
    ApiError::new(ErrorCode::IncorrectState, message)
}

/// # Errors
/// The volume cannot be attached to any instance, or is in another zone.
fn check_volume(state: &State, volume: &Volume, instance: &Instance) -> Result<(), ApiError> {
    let id = &volume.id;
    if volume.deleting {
        return Err(incorrect(format!(
            "{id} is not 'available': it is being deleted."
        )));
    }
    if let Some(has) = volume.instance_id() {
        return Err(ApiError::new(
            ErrorCode::VolumeInUse,
            format!("{id} is already attached to an instance: {has}. Detach it there first."),
        ));
    }
    if let Some(encryption) = &volume.encryption {
        keys::usable(state, encryption, &volume.region)?;
    }
    if state.zone_of(volume) != instance.availability_zone {
        return Err(ApiError::new(
            ErrorCode::InvalidVolumeZoneMismatch,
            format!(
                "The volume '{id}' is not in the same availability zone as instance '{}': it is in {}, and the instance \
                 in {}.",
                instance.id,
                state.zone_of(volume),
                instance.availability_zone
            ),
        ));
    }
    Ok(())
}

/// How far an attachment to the instance is at once.
///
/// # Errors
/// `IncorrectState`: nothing can be attached to it as it is.
fn check_instance(instance: &Instance, slot: &Slot) -> Result<Progress, ApiError> {
    let (id, state) = (&instance.id, instance.state);
    match state {
        InstanceState::Running if slot.is_root() => Err(incorrect(format!(
            "Instance '{id}' is not 'stopped': a root volume can be attached to a stopped instance only."
        ))),
        InstanceState::Running => Ok(Progress::Attaching),
        InstanceState::Stopped => Ok(Progress::Attached),
        _ => Err(incorrect(format!(
            "Instance '{id}' is not 'running': it is {state}. Wait until it is running or stopped."
        ))),
    }
}

/// # Errors
/// The device is used, or there are too many.
fn check_device(state: &State, instance: &Instance, slot: &Slot, device: &str) -> Result<(), ApiError> {
    if let Some(there) = devices::at(state, &instance.id, slot) {
        return Err(ApiError::new(
            ErrorCode::InvalidParameterValue,
            format!(
                "Invalid value '{device}' for unixDevice. Attachment point {device} is already in use by {}.",
                there.id
            ),
        ));
    }
    let is_there = |disk: &&StoreDisk| Slot::of(&disk.device).as_ref() == Some(slot);
    if let Some(there) = instance.store.iter().find(is_there) {
        return Err(ApiError::new(
            ErrorCode::InvalidParameterValue,
            format!(
                "Invalid value '{device}' for unixDevice. Attachment point {device} is already in use by {}.",
                virtual_name(there.number)
            ),
        ));
    }
    let volumes = state.by(&Volume::BY_INSTANCE, &instance.id).count();
    devices::check_count(volumes + instance.store.len() + 1)
}

/// Whether a volume that lies elsewhere is wanted on the instance's host: what a stopped instance has comes when it starts.
fn is_wanted_there(state: &State, volume: &Volume, instance: &Instance) -> bool {
    match &volume.host_id {
        Some(host) => *host != instance.host_id && instance.state == InstanceState::Running,
        None => state.host(&instance.host_id).is_some(),
    }
}

/// # Errors
/// There is no room for the volume on the instance's host, or it cannot come there.
fn check_place(app: &App, state: &State, volume: &Volume, instance: &Instance) -> Result<(), ApiError> {
    if is_wanted_there(state, volume, instance) {
        moving::check(app, state, volume, &instance.host_id)?;
        room::check(state, &instance.host_id, volume.spec.size_gib)?;
    }
    Ok(())
}

/// A volume takes room on the instance's host, and comes there if it lies elsewhere.
fn place(tx: &mut Tx<'_>, id: &str, instance: &Instance) {
    let volume = tx.get::<Volume>(id);
    if volume.is_some_and(|volume| is_wanted_there(tx, volume, instance)) {
        tx.relocate(id, &instance.host_id);
    }
    tx.volumes_have_come(&instance.id);
}

pub(super) async fn detach(app: &App, request: DetachVolumeRequest) -> Result<VolumeAttachment, ApiError> {
    let volume_id = input::id(Kind::Volume, &request.volume_id, "VolumeId")?.to_string();
    let instance_id = match request.instance_id.as_str() {
        "" => None,
        id => Some(input::id(Kind::Instance, id, "InstanceId")?.to_string()),
    };
    let (device, force) = (request.device, request.force);
    app.store
        .transact(move |tx| {
            if let Some(id) = &instance_id {
                instance(tx, id)?;
            }
            let mut volume = volume(tx, &volume_id)?;
            check_named(&volume, instance_id.as_deref(), &device)?;
            let Some(attachment) = volume.attachment.clone() else {
                let state = if volume.deleting { "deleting" } else { "available" };
                return Err(incorrect(format!(
                    "Volume '{volume_id}' is in the '{state}' state."
                )));
            };
            let instance = instance(tx, &attachment.instance_id)?;
            check_detachable(&instance, &attachment, &volume_id)?;
            let detail = json!({ "volume": volume_id, "instance": instance.id, "force": force });
            // An instance that does not run has let it go, and one on whose host it is not has never had it.
            if instance.state == InstanceState::Stopped || tx.is_away(&volume) {
                tx.cancel_move(&volume_id);
                let mut answer = told(tx, &volume)?;
                answer.state = "detached".into();
                volume.detach(tx.now());
                tx.put(volume);
                tx.event("volume.available", &volume_id);
                tx.audit(detail);
                return Ok(answer);
            }
            let next = ending(attachment.progress, force);
            let now = tx.now();
            if let Some(attachment) = volume.attachment.as_mut().filter(|a| a.progress != next) {
                attachment.set_progress(next, now);
                tx.put(volume.clone());
                tx.event("volume.detaching", &volume_id);
            }
            tx.audit(detail);
            told(tx, &volume)
        })
        .await
}

/// What becomes of an attachment that shall end. Asked again it is what it was, and by force it is the way out.
fn ending(now: Progress, force: bool) -> Progress {
    match now {
        _ if force => Progress::Forced,
        Progress::Attached | Progress::Attaching => Progress::Detaching,
        Progress::Detaching | Progress::Busy | Progress::Forced => now,
    }
}

/// # Errors
/// `InvalidAttachment.NotFound`: another instance has the volume, or at another device.
fn check_named(volume: &Volume, instance_id: Option<&str>, device: &str) -> Result<(), ApiError> {
    let slot = match device {
        "" => None,
        name => Some(devices::slot(name)?),
    };
    let is_other = match &volume.attachment {
        None => slot.is_some() && instance_id.is_some(),
        Some(attachment) => {
            instance_id.is_some_and(|id| id != attachment.instance_id)
                || slot.is_some() && slot != Slot::of(&attachment.device)
        }
    };
    if !is_other {
        return Ok(());
    }
    let instance = instance_id.map_or_else(String::new, |id| format!(" to instance {id}"));
    let device = if slot.is_some() {
        format!(" as device {device}")
    } else {
        String::new()
    };
    Err(ApiError::new(
        ErrorCode::InvalidAttachmentNotFound,
        format!("The volume {} is not attached{instance}{device}", volume.id),
    ))
}

/// # Errors
/// `OperationNotPermitted` for the root volume of an instance that is not stopped; `IncorrectState`.
fn check_detachable(instance: &Instance, attachment: &Attachment, volume_id: &str) -> Result<(), ApiError> {
    let is_root = Slot::of(&attachment.device).is_some_and(|slot| slot.is_root());
    match instance.state {
        InstanceState::Stopped => Ok(()),
        _ if is_root => Err(ApiError::new(
            ErrorCode::OperationNotPermitted,
            format!(
                "Unable to detach root volume '{volume_id}' from instance '{}': stop the instance first.",
                instance.id
            ),
        )),
        InstanceState::Running | InstanceState::Stopping => Ok(()),
        state => Err(incorrect(format!(
            "Instance '{}' is not 'running': it is {state}. Wait until it is running or stopped.",
            instance.id
        ))),
    }
}
