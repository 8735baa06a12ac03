//! ListVolumeStorage.

use std::collections::{BTreeMap, HashSet};

use futures::future::join_all;
use hearth_api::page::{Page, paginate};
use hearth_api::v1::{ListVolumeStorageRequest, ListVolumeStorageResponse, VolumeStorage};
use hearth_api::{ApiError, Kind};

use super::signed;
use crate::app::App;
use crate::services::input;
use crate::state::Volume;

/// Volumes of one answer.
const MOST: i32 = 1000;

pub(super) async fn list(
    app: &App,
    request: ListVolumeStorageRequest,
) -> Result<ListVolumeStorageResponse, ApiError> {
    let mut volume_storage;
    let next_token;
    {
        // Of all accounts.
        let state = app.store.state();
        input::all_known(Kind::Volume, &request.volume_ids, |id| {
            state.get::<Volume>(id).is_some()
        })?;
        let wanted: HashSet<&String> = request.volume_ids.iter().collect();
        let page = Page::of_at_most(MOST, request.max_results, &request.next_token);
        let tell = |volume: &Volume| {
            let is_wanted = wanted.is_empty() || wanted.contains(&volume.id);
            volume
                .host_id
                .as_ref()
                .filter(|_| is_wanted)
                .map(|host_id| VolumeStorage {
                    volume_id: volume.id.clone(),
                    owner_id: volume.account_id.clone(),
                    host_id: host_id.clone(),
                    base_id: volume.base_id().unwrap_or_default().to_owned(),
                    size_bytes: signed(volume.spec.size_gib.saturating_mul(1 << 30)),
                    ..VolumeStorage::default()
                })
        };
        (volume_storage, next_token) =
            paginate(state.all::<Volume>(), page, |volume| volume.id.clone(), tell)?;
    }
    ask(app, &mut volume_storage).await;
    Ok(ListVolumeStorageResponse {
        volume_storage,
        next_token,
    })
}

/// Each host once, about its volumes.
async fn ask(app: &App, rows: &mut [VolumeStorage]) {
    let mut of_hosts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in rows.iter() {
        let of_host = of_hosts.entry(row.host_id.clone()).or_default();
        of_host.push(row.volume_id.clone());
    }
    let asked = of_hosts.into_iter().map(|(host_id, volume_ids)| async move {
        let told = app.sessions.storage(&host_id, volume_ids).await;
        (host_id, told)
    });
    let (mut told, mut silent) = (BTreeMap::new(), BTreeMap::new());
    for (host_id, answer) in join_all(asked).await {
        match answer {
            Ok(report) => {
                let volumes = report.volumes.into_iter();
                told.extend(volumes.map(|volume| ((host_id.clone(), volume.volume_id.clone()), volume)));
            }
            Err(error) => drop(silent.insert(host_id, error.to_string())),
        }
    }
    for row in rows {
        if let Some(why) = silent.get(&row.host_id) {
            row.status_message.clone_from(why);
        } else if let Some(volume) = told.get(&(row.host_id.clone(), row.volume_id.clone())) {
            row.allocated_bytes = Some(signed(volume.allocated_bytes));
            row.written_bytes = Some(signed(volume.written_bytes));
            row.shared_bytes = Some(signed(volume.shared_bytes));
        } else {
            "its host has not made it yet".clone_into(&mut row.status_message);
        }
    }
}
