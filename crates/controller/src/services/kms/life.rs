//! Keys are made, described, disabled, enabled, and deleted. Their states: `docs/states.md`.

use std::sync::Arc;

use hearth_api::v1::*;
use hearth_api::{ApiError, ErrorCode};
use serde_json::json;

use super::{by_any, change, page, policies, refuse_deletion, tags};
use crate::app::App;
use crate::keys;
use crate::state::{KmsAlias, KmsKey};
use crate::store::now;
use crate::views::timestamp;

const USAGE: &str = "ENCRYPT_DECRYPT";
const SPEC: &str = "SYMMETRIC_DEFAULT";
const ORIGIN: &str = "AWS_KMS";
/// Days until a deletion is due.
const DAYS: std::ops::RangeInclusive<i32> = 7..=30;
/// Keys of a page: as many as nothing says, and the most.
const PAGE: (i32, i32) = (100, 1000);

fn tell(key: &KmsKey) -> KeyMetadata {
    KeyMetadata {
        aws_account_id: key.account_id.clone(),
        key_id: key.id.clone(),
        arn: key.arn(),
        creation_date: Some(timestamp(key.created_at)),
        enabled: key.can_be_used(),
        description: key.description.clone(),
        key_usage: USAGE.to_owned(),
        key_state: key.state().to_owned(),
        deletion_date: key.deletion.map(|deletion| timestamp(deletion.at)),
        origin: ORIGIN.to_owned(),
        key_manager: if key.is_managed { "AWS" } else { "CUSTOMER" }.to_owned(),
        customer_master_key_spec: SPEC.to_owned(),
        key_spec: SPEC.to_owned(),
        encryption_algorithms: vec![SPEC.to_owned()],
        multi_region: false,
    }
}

/// # Errors
/// `UnsupportedOperationException`: Hearth has no such key.
fn check(request: &CreateKeyRequest) -> Result<(), ApiError> {
    let unsupported = |message: String| {
        let error = ApiError::new(ErrorCode::UnsupportedOperationException, message);
        Err::<(), _>(error)
    };
    for (parameter, given, admitted) in [
        ("KeyUsage", &request.key_usage, USAGE),
        ("KeySpec", &request.key_spec, SPEC),
        ("CustomerMasterKeySpec", &request.customer_master_key_spec, SPEC),
        ("Origin", &request.origin, ORIGIN),
    ] {
        if !given.is_empty() && given != admitted {
            return unsupported(format!(
                "Keys with {parameter} {given:.100} are not supported: Hearth's keys are symmetric, for data keys. Leave it out, \
                 or give {admitted}."
            ));
        }
    }
    if request.multi_region == Some(true) {
        return unsupported("Keys of several regions are not supported: make one in each.".to_owned());
    }
    Ok(())
}

pub(super) async fn create(app: &App, request: CreateKeyRequest) -> Result<CreateKeyResponse, ApiError> {
    check(&request)?;
    let given = tags::checked(&request.tags)?;
    let scope = app.scope();
    let key = KmsKey {
        description: request.description,
        tags: given,
        policy: Some(request.policy).filter(|policy| !policy.is_empty()),
        ..keys::new_key(&app.vault, &scope, now())?
    };
    if key.policy.is_some() {
        policies::check(app, &key, request.bypass_policy_lockout_safety_check)?;
    }
    app.store
        .transact(move |tx| {
            tx.audit(json!({ "key": key.arn() }));
            tx.event("kms-key.created", &key.id);
            let key_metadata = Some(tell(&key));
            tx.put(key);
            Ok(CreateKeyResponse { key_metadata })
        })
        .await
}

/// Takes names of keys, too. The cloud's own key is made when it is first asked for.
pub(super) async fn describe(
    app: &App,
    request: DescribeKeyRequest,
) -> Result<DescribeKeyResponse, ApiError> {
    let (scope, given) = (app.scope(), &request.key_id);
    let (region, account) = (scope.region(), scope.account_id());
    let is_own =
        given == KmsAlias::EBS || *given == format!("arn:aws:kms:{region}:{account}:{}", KmsAlias::EBS);
    if is_own && app.state().kms_key(&scope, given).is_none() {
        let (scope, vault) = (scope.clone(), Arc::clone(&app.vault));
        let made = app.store.transact(move |tx| {
            let key = keys::managed_key(tx, &vault, &scope)?;
            tx.audit(json!({ "key": key.arn() }));
            Ok::<_, ApiError>(())
        });
        made.await?;
    }
    let state = app.state();
    let key = by_any(app, &state, given)?;
    Ok(DescribeKeyResponse {
        key_metadata: Some(tell(key)),
    })
}

pub(super) async fn list(app: &App, request: ListKeysRequest) -> Result<ListKeysResponse, ApiError> {
    let state = app.state();
    let entry = |key: &KmsKey| KeyListEntry {
        key_id: key.id.clone(),
        key_arn: key.arn(),
    };
    let of_id = |key: &&KmsKey| key.id.clone();
    let (keys, next_marker) = page(state.all(), PAGE, request.limit, &request.marker, of_id, entry)?;
    Ok(ListKeysResponse {
        keys,
        truncated: !next_marker.is_empty(),
        next_marker,
    })
}

pub(super) async fn enable(app: &App, request: EnableKeyRequest) -> Result<EnableKeyResponse, ApiError> {
    change(app, request.key_id, |key, _| {
        refuse_deletion(key)?;
        key.is_enabled = true;
        Ok(())
    })
    .await?;
    Ok(EnableKeyResponse {})
}

pub(super) async fn disable(app: &App, request: DisableKeyRequest) -> Result<DisableKeyResponse, ApiError> {
    change(app, request.key_id, |key, _| {
        refuse_deletion(key)?;
        key.is_enabled = false;
        Ok(())
    })
    .await?;
    Ok(DisableKeyResponse {})
}

pub(super) async fn update_description(
    app: &App,
    request: UpdateKeyDescriptionRequest,
) -> Result<UpdateKeyDescriptionResponse, ApiError> {
    let description = request.description;
    change(app, request.key_id, |key, _| {
        refuse_deletion(key)?;
        key.description = description;
        Ok(())
    })
    .await?;
    Ok(UpdateKeyDescriptionResponse {})
}

pub(super) async fn schedule_deletion(
    app: &App,
    request: ScheduleKeyDeletionRequest,
) -> Result<ScheduleKeyDeletionResponse, ApiError> {
    let days = request.pending_window_in_days.unwrap_or(*DAYS.end());
    if !DAYS.contains(&days) {
        let expected = format!("Expecting {} to {} days.", DAYS.start(), DAYS.end());
        return Err(ApiError::invalid_value("PendingWindowInDays", days, expected));
    }
    let key = change(app, request.key_id, move |key, now| {
        refuse_deletion(key)?;
        key.delete_in(days.unsigned_abs(), now);
        Ok(())
    })
    .await?;
    Ok(ScheduleKeyDeletionResponse {
        key_id: key.arn(),
        deletion_date: key.deletion.map(|deletion| timestamp(deletion.at)),
        key_state: key.state().to_owned(),
        pending_window_in_days: days,
    })
}

pub(super) async fn cancel_deletion(
    app: &App,
    request: CancelKeyDeletionRequest,
) -> Result<CancelKeyDeletionResponse, ApiError> {
    let key = change(app, request.key_id, |key, _| match key.deletion.take() {
        Some(_) => Ok(()),
        None => Err(ApiError::new(
            ErrorCode::KmsInvalidStateException,
            format!("{} is not pending deletion.", key.arn()),
        )),
    })
    .await?;
    Ok(CancelKeyDeletionResponse { key_id: key.arn() })
}
