//! ScrubStorage and ListStorageDamages. `crate::scrubs` does the work.

use std::path::Path;

use hearth_api::ApiError;
use hearth_api::page::{Page, paginate};
use hearth_api::v1::{
    ListStorageDamagesRequest, ListStorageDamagesResponse, ScrubStorageRequest, ScrubStorageResponse,
    StorageDamage, StorageScrub,
};
use hearth_repository::Place;
use serde_json::json;

use super::signed;
use crate::app::App;
use crate::state::{self, Image, Scrub, ScrubState, Snapshot, State};
use crate::views;

/// Damages of one answer.
const MOST: i32 = 1000;
/// Snapshots and images that one damage names.
const NAMED: usize = 16;

/// Begins a scrub, unless one is under way.
pub(super) async fn begin(app: &App, request: ScrubStorageRequest) -> Result<ScrubStorageResponse, ApiError> {
    check_copy(app, &request.copy)?;
    let copy = request.copy;
    let scrub = app
        .store
        .transact(move |tx| {
            if let Some(running) = tx.get::<Scrub>(Scrub::ID).filter(|row| row.is_running()) {
                return Ok::<_, ApiError>(running.clone());
            }
            let scrub = Scrub::begin(&copy, tx.now());
            tx.audit(json!({ "copy": copy }));
            tx.put(scrub.clone());
            Ok(scrub)
        })
        .await?;
    Ok(ScrubStorageResponse {
        scrub: Some(tell(&scrub)),
    })
}

fn check_copy(app: &App, copy: &str) -> Result<(), ApiError> {
    if copy.is_empty() {
        return Ok(());
    }
    let expected = match copy.parse::<Place>() {
        Err(error) => error.to_string(),
        Ok(place) if place == app.config.repository() => "This is the repository itself.".to_owned(),
        Ok(Place::Bucket { .. }) => return Ok(()),
        Ok(Place::Directory(path)) => match is_repository(&path) {
            true => return Ok(()),
            false => format!(
                "Expecting a directory's whole path on the machine of hearthd, in which there are the directories chunks, \
                 nodes and snapshots, such as {} of a backup.",
                Path::new("BACKUP").join("repository").display()
            ),
        },
    };
    Err(ApiError::invalid_value("Copy", copy, expected))
}

fn is_repository(path: &Path) -> bool {
    let has = |room: &&str| path.join(room).is_dir();
    path.is_absolute() && ["chunks", "nodes", "snapshots"].iter().all(has)
}

pub(super) fn tell(scrub: &Scrub) -> StorageScrub {
    StorageScrub {
        state: match scrub.state {
            ScrubState::Running => "running",
            ScrubState::Completed => "completed",
            ScrubState::Failed => "failed",
        }
        .to_owned(),
        start_time: Some(views::timestamp(scrub.started_at)),
        end_time: scrub.ended_at.map(views::timestamp),
        progress: format!("{}%", scrub.percent()),
        checked_objects: signed(scrub.checked),
        damage_count: signed(scrub.damage_count),
        repaired_count: signed(scrub.repaired_count),
        copy: scrub.copy.clone(),
        status_message: scrub.failure.clone(),
    }
}

pub(super) async fn damages(
    app: &App,
    request: ListStorageDamagesRequest,
) -> Result<ListStorageDamagesResponse, ApiError> {
    // Of all accounts.
    let state = app.store.state();
    let scrub = state.get::<Scrub>(Scrub::ID);
    let damages = scrub.map_or(&[][..], |scrub| &scrub.damages);
    let page = Page::of_at_most(MOST, request.max_results, &request.next_token);
    let told = |damage: &state::StorageDamage| {
        Some(StorageDamage {
            object: damage.object.clone(),
            reason: damage.reason.clone(),
            repaired: damage.repaired,
            resource_ids: users(&state, &damage.disks),
        })
    };
    let (storage_damages, next_token) = paginate(damages, page, |damage| damage.object.clone(), told)?;
    Ok(ListStorageDamagesResponse {
        storage_damages,
        next_token,
    })
}

/// Snapshots and images that are these disks.
fn users(state: &State, disks: &[String]) -> Vec<String> {
    let of_disk = |disk: &String| {
        let snapshots = state.by(&Snapshot::BY_DISK, disk).map(|row| row.id.clone());
        let images = state.by(&Image::BY_DISK, disk).map(|row| row.id.clone());
        snapshots.chain(images).collect::<Vec<_>>()
    };
    disks.iter().flat_map(of_disk).take(NAMED).collect()
}
