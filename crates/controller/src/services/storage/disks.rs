//! ListDiskStorage.

use std::collections::BTreeSet;

use hearth_api::page::{Page, paginate};
use hearth_api::v1::{DiskStorage, ListDiskStorageRequest, ListDiskStorageResponse};
use hearth_api::{ApiError, Kind};
use hearth_repository::Share;

use super::signed;
use crate::app::App;
use crate::state::{Image, Snapshot, State};

/// Disks of one answer.
const MOST: i32 = 1000;

pub(super) async fn list(
    app: &App,
    request: ListDiskStorageRequest,
) -> Result<ListDiskStorageResponse, ApiError> {
    // Of all accounts.
    let state = app.store.state();
    let wanted = match request.resource_ids.is_empty() {
        true => None,
        false => Some(named(&state, &request.resource_ids)?),
    };
    let counted = app.surveys.newest(&app.repository).await?;
    let shares = counted.survey.snapshots.iter();
    let shares = shares.filter(|(name, _)| wanted.as_ref().is_none_or(|wanted| wanted.contains(*name)));
    let page = Page::of_at_most(MOST, request.max_results, &request.next_token);
    let tell = |(name, share): (&String, &Share)| Some(told(&state, name, share));
    let (disk_storage, next_token) = paginate(shares, page, |(name, _)| (*name).clone(), tell)?;
    Ok(ListDiskStorageResponse {
        disk_storage,
        next_token,
    })
}

/// The disks of snapshots and images.
///
/// # Errors
/// One of them is not there.
fn named(state: &State, ids: &[String]) -> Result<BTreeSet<String>, ApiError> {
    let mut disks = BTreeSet::new();
    for id in ids {
        match Kind::of(id) {
            Some(Kind::Image) => {
                let image = state.get::<Image>(id);
                let image = image.ok_or_else(|| Kind::Image.not_found(&[id]))?;
                disks.insert(image.snapshot.clone());
            }
            Some(Kind::Snapshot) => {
                let snapshot = state.get::<Snapshot>(id);
                let snapshot = snapshot.ok_or_else(|| Kind::Snapshot.not_found(&[id]))?;
                disks.extend(snapshot.disk().map(|disk| disk.name.clone()));
            }
            _ => {
                let expected = "Expecting the id of a snapshot (snap-...) or of an image (ami-...).";
                return Err(ApiError::invalid_value("ResourceIds", id, expected));
            }
        }
    }
    Ok(disks)
}

fn told(state: &State, name: &str, share: &Share) -> DiskStorage {
    let snapshots = state.by(&Snapshot::BY_DISK, name);
    DiskStorage {
        disk_name: name.to_owned(),
        // Not those that are copied from it.
        snapshot_ids: snapshots
            .filter(|row| row.disk().is_some_and(|disk| disk.name == name))
            .map(|row| row.id.clone())
            .collect(),
        image_ids: state
            .by(&Image::BY_DISK, name)
            .map(|row| row.id.clone())
            .collect(),
        size_bytes: signed(share.size),
        chunk_count: signed(share.chunks),
        stored_bytes: signed(share.stored),
        shared_bytes: signed(share.shared),
        freed_bytes: signed(share.own),
        encrypted: share.is_encrypted,
        damage: share.damage.clone().unwrap_or_default(),
    }
}
