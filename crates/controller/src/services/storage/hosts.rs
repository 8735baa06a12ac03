//! ListHostStorage.

use futures::future::join_all;
use hearth_api::ApiError;
use hearth_api::page::{Page, paginate};
use hearth_api::v1::{HostStorage, ListHostStorageRequest, ListHostStorageResponse};

use super::signed;
use crate::app::App;
use crate::state::{HostReport, State, Volume};

/// Hosts of one answer, which are asked at the same time.
const MOST: i32 = 100;

pub(super) async fn list(
    app: &App,
    request: ListHostStorageRequest,
) -> Result<ListHostStorageResponse, ApiError> {
    let state = app.store.state();
    let page = Page::of_at_most(MOST, request.max_results, &request.next_token);
    let tell = |host: &crate::state::Host| Some(planned(&state, host));
    let (mut host_storage, next_token) = paginate(state.hosts(), page, |host| host.id.clone(), tell)?;
    drop(state);
    join_all(host_storage.iter_mut().map(|row| ask(app, row))).await;
    Ok(ListHostStorageResponse {
        host_storage,
        next_token,
    })
}

/// What is known without the host.
fn planned(state: &State, host: &crate::state::Host) -> HostStorage {
    let report = state.get::<HostReport>(&host.id);
    let [volumes, _] = state.sum(&Volume::ON_HOST, &host.id);
    HostStorage {
        host_id: host.id.clone(),
        hostname: report.map(|report| report.hostname.clone()).unwrap_or_default(),
        availability_zone: host.availability_zone.clone(),
        capacity_bytes: report.map_or(0, |report| signed(report.disk_bytes)),
        promised_bytes: signed(state.gib_on(&host.id).saturating_mul(1 << 30)),
        volume_count: signed(volumes),
        ..HostStorage::default()
    }
}

async fn ask(app: &App, row: &mut HostStorage) {
    match app.sessions.storage(&row.host_id, Vec::new()).await {
        Ok(report) => {
            row.total_bytes = Some(signed(report.total_bytes));
            row.free_bytes = Some(signed(report.free_bytes));
            row.volume_bytes = Some(signed(report.volume_bytes));
            row.base_bytes = Some(signed(report.base_bytes));
            row.instance_store_bytes = Some(signed(report.instance_store_bytes));
            row.overcommit = i32::try_from(report.overcommit).ok();
        }
        Err(error) => row.status_message = error.to_string(),
    }
}
