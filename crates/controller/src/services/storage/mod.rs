//! What lies where, for the operator: on hosts, and in the repository.

use hearth_api::ApiError;
use hearth_api::v1::{DescribeStorageRequest, DescribeStorageResponse, RepositoryStorage};

use super::serve;
use crate::app::App;
use crate::state::Scrub;
use crate::views;

mod disks;
mod hosts;
mod scrubs;
mod surveys;
mod volumes;

pub use surveys::Surveys;

serve! { storage_server::Storage as Storage {
    describe_storage(DescribeStorageRequest) -> DescribeStorageResponse: describe;
    list_disk_storage(ListDiskStorageRequest) -> ListDiskStorageResponse: disks::list;
    list_host_storage(ListHostStorageRequest) -> ListHostStorageResponse: hosts::list;
    list_volume_storage(ListVolumeStorageRequest) -> ListVolumeStorageResponse: volumes::list;
    scrub_storage(ScrubStorageRequest) -> ScrubStorageResponse: scrubs::begin;
    list_storage_damages(ListStorageDamagesRequest) -> ListStorageDamagesResponse: scrubs::damages;
} }

/// As the API tells numbers.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

async fn describe(app: &App, _: DescribeStorageRequest) -> Result<DescribeStorageResponse, ApiError> {
    let counted = app.surveys.newest(&app.repository).await?;
    let totals = counted.survey.totals;
    let repository = RepositoryStorage {
        place: app.config.repository().to_string(),
        disk_count: signed(counted.survey.snapshots.len() as u64),
        disk_bytes: signed(totals.size),
        chunk_references: signed(totals.references),
        chunk_count: signed(totals.chunks),
        chunk_bytes: signed(totals.chunks.saturating_mul(hearth_repository::CHUNK as u64)),
        stored_bytes: signed(totals.stored),
        unneeded_bytes: signed(totals.unneeded),
        count_time: Some(views::timestamp(counted.at)),
    };
    let state = app.store.state();
    Ok(DescribeStorageResponse {
        repository: Some(repository),
        scrub: state.get::<Scrub>(Scrub::ID).map(scrubs::tell),
    })
}
