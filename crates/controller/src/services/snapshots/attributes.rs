//! DescribeSnapshotAttribute, ModifySnapshotAttribute, ResetSnapshotAttribute: who else may make volumes from a snapshot.
//! <https://docs.aws.amazon.com/ebs/latest/userguide/ebs-modifying-snapshot-permissions.html>

use hearth_api::v1::{
    CreateVolumePermission, DescribeSnapshotAttributeRequest, DescribeSnapshotAttributeResult,
    ModifySnapshotAttributeRequest, ModifySnapshotAttributeResponse, ResetSnapshotAttributeRequest,
    ResetSnapshotAttributeResponse,
};
use hearth_api::{ApiError, ErrorCode, Kind};
use serde_json::json;

use super::own;
use crate::app::App;
use crate::services::{input, sharing};
use crate::state::Snapshot;

const PERMISSION: &str = "createVolumePermission";

fn unknown(attribute: &str) -> ApiError {
    let expected = "Expecting createVolumePermission.";
    ApiError::invalid_value("Attribute", attribute, expected)
}

pub(super) async fn describe(
    app: &App,
    request: DescribeSnapshotAttributeRequest,
) -> Result<DescribeSnapshotAttributeResult, ApiError> {
    let id = input::id(Kind::Snapshot, &request.snapshot_id, "SnapshotId")?;
    let state = app.state();
    let row = own(&state, &id)?;
    let create_volume_permissions = match request.attribute.as_str() {
        PERMISSION => sharing::tell(row.is_public, &row.shared_with)
            .map(|named| CreateVolumePermission {
                user_id: named.account,
                group: named.group,
            })
            .collect(),
        "productCodes" => Vec::new(),
        "" => return Err(ApiError::missing("Attribute")),
        other => return Err(unknown(other)),
    };
    Ok(DescribeSnapshotAttributeResult {
        snapshot_id: row.id.clone(),
        create_volume_permissions,
        // No snapshot has one.
        product_codes: Vec::new(),
    })
}

fn change(request: &ModifySnapshotAttributeRequest) -> Result<sharing::Change, ApiError> {
    let named = |given: &[CreateVolumePermission]| {
        let named = given.iter().map(|permission| sharing::Named {
            account: permission.user_id.clone(),
            group: permission.group.clone(),
        });
        named.collect()
    };
    match (&request.create_volume_permission, request.attribute.as_str()) {
        (Some(given), "" | PERMISSION) => Ok(sharing::Change {
            add: named(&given.add),
            remove: named(&given.remove),
        }),
        (None, PERMISSION) => {
            sharing::listed(&request.operation_type, &request.group_names, &request.user_ids)
        }
        (None, "") => Err(ApiError::missing("CreateVolumePermission")),
        (_, other) => Err(unknown(other)),
    }
}

pub(super) async fn modify(
    app: &App,
    request: ModifySnapshotAttributeRequest,
) -> Result<ModifySnapshotAttributeResponse, ApiError> {
    let id = input::id(Kind::Snapshot, &request.snapshot_id, "SnapshotId")?;
    let change = change(&request)?;
    app.store
        .transact(move |tx| {
            let mut row = own(tx, &id)?.clone();
            let refuse = |is_managed| {
                let why = match is_managed {
                    true => "Encrypted snapshots with EBS default key cannot be shared",
                    false => "Encrypted snapshots cannot be public: share it with accounts.",
                };
                ApiError::new(ErrorCode::OperationNotPermitted, why)
            };
            sharing::check_encrypted(tx, &change, row.encryption.as_ref(), refuse)?;
            sharing::apply(&change, &mut row.is_public, &mut row.shared_with)?;
            tx.audit(json!({ "snapshot": row.id, "public": row.is_public, "shared_with": row.shared_with }));
            tx.event("snapshot.modified", &id);
            tx.put(row);
            Ok(ModifySnapshotAttributeResponse {})
        })
        .await
}

pub(super) async fn reset(
    app: &App,
    request: ResetSnapshotAttributeRequest,
) -> Result<ResetSnapshotAttributeResponse, ApiError> {
    let id = input::id(Kind::Snapshot, &request.snapshot_id, "SnapshotId")?;
    if request.attribute != PERMISSION {
        return Err(unknown(&request.attribute));
    }
    app.store
        .transact(move |tx| {
            let row = own(tx, &id)?.clone();
            tx.audit(json!({ "snapshot": row.id }));
            tx.event("snapshot.modified", &id);
            tx.put(Snapshot {
                is_public: false,
                shared_with: Default::default(),
                ..row
            });
            Ok(ResetSnapshotAttributeResponse {})
        })
        .await
}
