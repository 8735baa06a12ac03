//! CreateSnapshots: of the volumes of an instance, all of one point in time.
//! <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateSnapshots.html>

use hearth_api::v1::{self, CreateSnapshotsRequest, CreateSnapshotsResult, InstanceSpecification};
use hearth_api::{ApiError, ErrorCode, Id, Kind};
use serde_json::json;

use super::{create, describe};
use crate::app::App;
use crate::services::image_disks::limits;
use crate::services::input;
use crate::services::volumes::devices::Slot;
use crate::state::{Instance, Snapshot, State, Tags, Volume};

pub(super) async fn create(
    app: &App,
    request: CreateSnapshotsRequest,
) -> Result<CreateSnapshotsResult, ApiError> {
    let specification = request.instance_specification;
    let specification = specification.ok_or_else(|| ApiError::missing("InstanceSpecification"))?;
    let instance_id = input::id(Kind::Instance, &specification.instance_id, "InstanceId")?.to_string();
    for id in &specification.exclude_data_volume_ids {
        Id::parse(Kind::Volume, id)?;
    }
    let copies_tags = match request.copy_tags_from_source.as_str() {
        "" => false,
        "volume" => true,
        other => {
            let expected = "Expecting volume.";
            return Err(ApiError::invalid_value("CopyTagsFromSource", other, expected));
        }
    };
    let given = create::tags(&request.tag_specifications)?;
    let description = request.description;
    let (account_id, config) = (app.account(), app.config.clone());
    let ids = app
        .store
        .transact(move |tx| {
            if tx.own::<Instance>(&instance_id).is_none() {
                return Err(Kind::Instance.not_found(&[&instance_id]));
            }
            let volumes = wanted(tx, &instance_id, &specification)?;
            limits::has_room(tx, &account_id, &config)?;
            let set = (volumes.len() > 1).then(|| format!("set-{:016x}", rand::random::<u64>()));
            let mut ids = Vec::new();
            for volume in &volumes {
                let mut tags = Tags::new();
                if copies_tags {
                    tags.extend(volume.tags.clone());
                }
                tags.extend(given.clone());
                if tags.len() > input::MAX_TAGS {
                    return Err(input::too_many_tags());
                }
                ids.push(create::begin(tx, volume, &description, tags, set.as_deref())?);
            }
            tx.audit(json!({ "snapshots": ids, "instance": instance_id }));
            Ok(ids)
        })
        .await?;
    create::settled(app, &ids).await;
    let state = app.state();
    let made = ids.iter().filter_map(|id| state.snapshot(id));
    Ok(CreateSnapshotsResult {
        snapshots: made.map(|row| tell(&state, row)).collect(),
    })
}

/// The volumes of an instance that are meant, the root volume first.
fn wanted(
    state: &State,
    instance_id: &str,
    specification: &InstanceSpecification,
) -> Result<Vec<Volume>, ApiError> {
    let slot = |volume: &Volume| Slot::of(&volume.attachment.as_ref()?.device);
    let is_root = |volume: &Volume| slot(volume).is_some_and(|slot| slot.is_root());
    let of_instance: Vec<&Volume> = state.by(&Volume::BY_INSTANCE, instance_id).collect();
    let excluded = &specification.exclude_data_volume_ids;
    for id in excluded {
        match of_instance.iter().find(|volume| volume.id == *id) {
            Some(volume) if is_root(volume) => {
                let expected = "It is the root volume: exclude it by ExcludeBootVolume.";
                return Err(ApiError::invalid_value("ExcludeDataVolumeIds", id, expected));
            }
            Some(_) => {}
            None => {
                let expected = format!("No such volume is attached to the instance {instance_id}.");
                return Err(ApiError::invalid_value("ExcludeDataVolumeIds", id, expected));
            }
        }
    }
    let is_left_out = |volume: &Volume| {
        excluded.contains(&volume.id) || specification.exclude_boot_volume && is_root(volume)
    };
    let mut wanted: Vec<Volume> = of_instance
        .into_iter()
        .filter(|volume| !is_left_out(volume))
        .cloned()
        .collect();
    wanted.sort_by_key(|volume| (!is_root(volume), slot(volume)));
    if wanted.is_empty() {
        return Err(ApiError::new(
            ErrorCode::InvalidParameterCombination,
            format!(
                "No volume of the instance '{instance_id}' is left to make a snapshot of: exclude fewer."
            ),
        ));
    }
    Ok(wanted)
}

fn tell(state: &State, row: &Snapshot) -> v1::SnapshotInfo {
    let told = describe::tell(state, row);
    v1::SnapshotInfo {
        description: told.description,
        tags: told.tags,
        encrypted: told.encrypted,
        volume_id: told.volume_id,
        state: told.state,
        volume_size: told.volume_size,
        start_time: told.start_time,
        progress: told.progress,
        owner_id: told.owner_id,
        snapshot_id: told.snapshot_id,
    }
}
