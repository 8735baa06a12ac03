//! DescribeSnapshots.

use hearth_api::filter::{Filters, Known};
use hearth_api::known;
use hearth_api::page::{Page, paginate, refuse_page_of_ids};
use hearth_api::v1::{self, DescribeSnapshotsRequest, DescribeSnapshotsResult};
use hearth_api::{ApiError, Kind};

use crate::app::App;
use crate::services::input;
use crate::services::volumes::describe::gib;
use crate::state::noun::tell_tags;
use crate::state::{Contents, Snapshot, State};
use crate::views;

pub(in crate::services) const FILTERS: Known<v1::Snapshot> = known! {
    tags: |item| &item.tags;
    "description" => description,
    "encrypted" => encrypted,
    "owner-alias" => none,
    "owner-id" => owner_id,
    "progress" => progress,
    "snapshot-id" => snapshot_id,
    "start-time" => start_time,
    "status" => state,
    "storage-tier" => storage_tier,
    "transfer-type" => none,
    "volume-id" => volume_id,
    "volume-size" => volume_size,
};

/// There is no other: nothing is archived.
const TIER: &str = "standard";

pub(super) async fn describe(
    app: &App,
    request: DescribeSnapshotsRequest,
) -> Result<DescribeSnapshotsResult, ApiError> {
    let ids = &request.snapshot_ids;
    let page = Page::new(request.max_results, &request.next_token);
    refuse_page_of_ids(ids, page, "snapshotSet")?;
    let filters = Filters::new(&request.filters, &FILTERS)?;
    let state = app.state();
    let account = app.account();
    input::all_known(Kind::Snapshot, ids, |id| state.snapshot(id).is_some())?;
    let named: Vec<&Snapshot> = match ids.is_empty() {
        true => state.all::<Snapshot>().filter(|row| !row.deleted).collect(),
        false => {
            let mut named: Vec<&Snapshot> = ids.iter().filter_map(|id| state.snapshot(id)).collect();
            named.sort_by(|one, other| one.id.cmp(&other.id));
            named.dedup_by(|one, other| one.id == other.id);
            named
        }
    };
    let wanted = named.into_iter().filter(|row| {
        let owns = |name: &String| *name == row.account_id || (name == "self" && row.account_id == account);
        // Those that were given the right to it, which its owner has anyway.
        let may_restore = |name: &String| match name.as_str() {
            "all" => row.is_public,
            "self" => row.account_id == account || row.shared_with.contains(&account),
            id => row.account_id == id || row.shared_with.contains(id),
        };
        let is_among =
            |names: &[String], is: &dyn Fn(&String) -> bool| names.is_empty() || names.iter().any(is);
        is_among(&request.owner_ids, &owns) && is_among(&request.restorable_by_user_ids, &may_restore)
    });
    let tell = |row: &Snapshot| {
        let snapshot = tell(&state, row);
        filters.matches(&snapshot).then_some(snapshot)
    };
    let (snapshots, next_token) = paginate(wanted, page, |row| row.id.clone(), tell)?;
    Ok(DescribeSnapshotsResult {
        next_token,
        snapshots,
    })
}

/// Tags are the owner's alone.
pub(in crate::services) fn tell(state: &State, row: &Snapshot) -> v1::Snapshot {
    let mut told = v1::Snapshot {
        tags: state
            .tags(Kind::Snapshot, &row.id)
            .map_or_else(Vec::new, tell_tags),
        storage_tier: TIER.into(),
        snapshot_id: row.id.clone(),
        volume_id: row.volume_id.clone(),
        start_time: Some(views::timestamp(row.started_at)),
        owner_id: row.account_id.clone(),
        description: row.description.clone(),
        volume_size: gib(row.size_gib),
        encrypted: row.encryption.is_some(),
        kms_key_id: views::kms_key(row.encryption.as_ref(), &row.region),
        ..v1::Snapshot::default()
    };
    match &row.contents {
        Contents::Pending(pending) => {
            told.state = "pending".into();
            told.progress = format!("{}%", pending.percent);
        }
        Contents::Copying(copying) => {
            told.state = "pending".into();
            told.progress = format!("{}%", copying.percent);
        }
        Contents::Completed { at, .. } => {
            told.state = "completed".into();
            told.progress = "100%".into();
            told.completion_time = Some(views::timestamp(*at));
        }
        Contents::Error { message } => {
            told.state = "error".into();
            told.state_message.clone_from(message);
        }
    }
    told
}
