//! CreateImage: an image of the volumes of an instance, as they are at one point in time. It is pending until its snapshots are
//! completed.
//! <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateImage.html>

use std::collections::BTreeMap;

use hearth_api::v1::{CreateImageRequest, CreateImageResult};
use hearth_api::{ApiError, ErrorCode, Id, InstanceState, Kind};
use serde_json::json;

use super::devices::{self, Asked};
use super::{check_name, name_is_free};
use crate::app::App;
use crate::lifecycle::{Command, apply};
use crate::services::image_disks::limits;
use crate::services::volumes::devices::Slot;
use crate::services::{input, snapshots};
use crate::state::noun::keep_tags;
use crate::state::{Image, ImageDevice, ImageSource, Instance, PENDING, Scope, State, Tags, Tx, Volume};

/// A request that makes sense by itself.
struct Plan {
    instance_id: String,
    name: String,
    description: String,
    no_reboot: bool,
    asked: BTreeMap<Slot, (String, Asked)>,
    image_tags: Tags,
    snapshot_tags: Tags,
}

pub(super) async fn create(app: &App, request: CreateImageRequest) -> Result<CreateImageResult, ApiError> {
    let plan = check(request)?;
    let (scope, config) = (app.scope(), app.config.clone());
    let (image_id, snapshots, is_shut_down) = app
        .store
        .transact(move |tx| {
            name_is_free(tx, &scope, &plan.name)?;
            limits::one_more(tx, scope.account_id(), &config, 0)?;
            limits::has_room(tx, scope.account_id(), &config)?;
            insert(tx, &scope, plan)
        })
        .await?;
    if !is_shut_down {
        snapshots::settled(app, &snapshots).await;
    }
    Ok(CreateImageResult { image_id })
}

fn check(request: CreateImageRequest) -> Result<Plan, ApiError> {
    let instance_id = input::id(Kind::Instance, &request.instance_id, "InstanceId")?.to_string();
    check_name(&request.name, &request.description)?;
    let asked = devices::asked(&request.block_device_mappings)?;
    for (_, what) in asked.values() {
        if let Asked::Ebs(ebs) = what
            && !ebs.snapshot_id.is_empty()
        {
            return Err(devices::refused(format!(
                "Snapshots of the image are those that the call makes: leave '{}' out.",
                ebs.snapshot_id
            )));
        }
    }
    let made = [Kind::Image, Kind::Snapshot];
    let tags = |kind| {
        Ok::<_, ApiError>(keep_tags(&input::tags_for(
            &request.tag_specifications,
            &made,
            kind,
        )?))
    };
    Ok(Plan {
        instance_id,
        no_reboot: request.no_reboot,
        asked,
        image_tags: tags(Kind::Image)?,
        snapshot_tags: tags(Kind::Snapshot)?,
        name: request.name,
        description: request.description,
    })
}

/// Answers the image, its snapshots, and whether the instance is shut down for them.
fn insert(tx: &mut Tx<'_>, scope: &Scope, plan: Plan) -> Result<(String, Vec<String>, bool), ApiError> {
    let instance = tx.own::<Instance>(&plan.instance_id).cloned();
    let instance = instance.ok_or_else(|| Kind::Instance.not_found(&[&plan.instance_id]))?;
    let volumes = volumes(tx, &plan)?;
    let source = source(tx, &instance, &volumes)?;
    let id = Id::new(Kind::Image).to_string();
    let set = (volumes.len() > 1).then_some(id.as_str());
    let description = format!("Created by CreateImage({}) for {id}", instance.id);
    let is_shut_down = quiesce(tx, &instance, plan.no_reboot)?;
    let (mut own, mut ids) = (Vec::new(), Vec::new());
    for (device, volume) in &volumes {
        let snapshot = snapshots::begin(tx, volume, &description, plan.snapshot_tags.clone(), set)?;
        own.push(of_volume(&plan, device, volume, &snapshot)?);
        ids.push(snapshot);
    }
    own.extend(blank(&plan, &volumes)?);
    let store = devices::store_over(&instance.mapped_store(), &plan.asked);
    tx.put(Image {
        id: id.clone(),
        account_id: scope.account_id().to_owned(),
        region: scope.region().to_owned(),
        name: plan.name,
        description: plan.description,
        state: PENDING.to_owned(),
        size: 0,
        digest: String::new(),
        snapshot: String::new(),
        encryption: None,
        devices: own,
        store,
        source: Some(ImageSource::Instance {
            instance_id: instance.id.clone(),
        }),
        failure: String::new(),
        kernel_path: source.kernel_path,
        boot_mode: source.boot_mode,
        ena_support: source.ena_support,
        sriov_net_support: source.sriov_net_support,
        is_public: false,
        shared_with: Default::default(),
        created_at: tx.now(),
        tags: plan.image_tags,
    });
    tx.audit(json!({ "image": id, "instance": instance.id, "snapshots": ids }));
    tx.event("image.pending", &id);
    // Nothing of its volumes may lie anywhere.
    tx.settle_image(&id);
    Ok((id, ids, is_shut_down))
}

/// Shuts a running instance down, unless the image is made of it as it runs. It runs again when the point in time of its
/// volumes has come. Answers whether that is to be waited for.
///
/// # Errors
/// `IncorrectState`.
fn quiesce(tx: &mut Tx<'_>, instance: &Instance, no_reboot: bool) -> Result<bool, ApiError> {
    let (id, state) = (&instance.id, instance.state);
    match state {
        InstanceState::Stopped => Ok(false),
        InstanceState::Running if no_reboot => Ok(false),
        InstanceState::Running => {
            tx.update::<Instance>(id, |row| row.imaging = true);
            if let Some(stop) = apply(&instance.lifecycle(), Command::Stop { force: false }, id)? {
                tx.change_instance(id, &stop);
            }
            Ok(true)
        }
        _ => Err(ApiError::new(
            ErrorCode::IncorrectState,
            format!("Instance '{id}' is not 'running' or 'stopped': it is {state}."),
        )),
    }
}

/// The volumes that are meant, the root volume first, with the devices where they are.
fn volumes(state: &State, plan: &Plan) -> Result<Vec<(Slot, Volume)>, ApiError> {
    let slot = |volume: &Volume| Slot::of(&volume.attachment.as_ref()?.device);
    let of_instance = state.by(&Volume::BY_INSTANCE, &plan.instance_id);
    let mut volumes: Vec<(Slot, Volume)> = of_instance
        .filter_map(|volume| Some((slot(volume)?, volume.clone())))
        .filter(|(slot, _)| !matches!(plan.asked.get(slot), Some((_, Asked::Without | Asked::Store(_)))))
        .collect();
    volumes.sort_by_key(|(slot, _)| (!slot.is_root(), slot.clone()));
    match volumes.first() {
        Some((slot, _)) if slot.is_root() => Ok(volumes),
        _ => Err(ApiError::new(
            ErrorCode::IncorrectState,
            format!(
                "Instance '{}' does not have a root volume: attach one first.",
                plan.instance_id
            ),
        )),
    }
}

/// The image that says how the root volume boots.
fn source(state: &State, instance: &Instance, volumes: &[(Slot, Volume)]) -> Result<Image, ApiError> {
    let of_root = volumes.first().and_then(|(_, root)| root.image_id.as_deref());
    let found = of_root
        .and_then(|id| state.of_anybody::<Image>(id))
        .or_else(|| state.of_anybody(&instance.image_id));
    found
        .cloned()
        .ok_or_else(|| Kind::Image.not_found(&[&instance.image_id]))
}

/// A volume, as its request changes it.
fn of_volume(plan: &Plan, slot: &Slot, volume: &Volume, snapshot: &str) -> Result<ImageDevice, ApiError> {
    let attachment = volume.attachment.as_ref();
    let own = ImageDevice {
        device: attachment.map(|a| a.device.clone()).unwrap_or_default(),
        snapshot_id: Some(snapshot.to_owned()),
        encrypted: false,
        size_gib: volume.told_gib(),
        volume_type: volume.spec.volume_type,
        iops: volume.spec.iops,
        throughput: volume.spec.throughput,
        delete_on_termination: attachment.is_none_or(|a| a.delete_on_termination),
    };
    let Some((_, Asked::Ebs(asked))) = plan.asked.get(slot) else {
        return Ok(own);
    };
    if asked.volume_size != 0 && u64::from(asked.volume_size.unsigned_abs()) < own.size_gib {
        return Err(devices::refused(format!(
            "Volume of size {}GB is smaller than the volume '{}', expect size>= {}GB",
            asked.volume_size, volume.id, own.size_gib
        )));
    }
    let is_encrypted = volume.encryption.is_some();
    if asked.encrypted.is_some_and(|asked| asked != is_encrypted) {
        return Err(devices::refused(format!(
            "The volume '{}' of the device {} is {}encrypted, and so is its snapshot: leave Encrypted out.",
            volume.id,
            own.device,
            if is_encrypted { "" } else { "not " }
        )));
    }
    let mut changed = devices::over(&devices::ebs(&own), asked);
    changed.encrypted = None;
    let mut device = devices::device(&own.device, &changed, None)?;
    device.snapshot_id = own.snapshot_id;
    Ok(device)
}

/// Devices that the instance does not have.
fn blank(plan: &Plan, volumes: &[(Slot, Volume)]) -> Result<Vec<ImageDevice>, ApiError> {
    let is_new = |slot: &&Slot| !volumes.iter().any(|(of, _)| of == *slot);
    let mut blank = Vec::new();
    for slot in plan.asked.keys().filter(is_new) {
        if let Some((name, Asked::Ebs(ebs))) = plan.asked.get(slot) {
            blank.push(devices::device(name, ebs, None)?);
        }
    }
    Ok(blank)
}
