//! KMS: keys that seal the data keys of volumes, snapshots and images.
//! <https://docs.aws.amazon.com/kms/latest/APIReference/Welcome.html>
//!
//! Not here: key policies and grants (an account's IAM policies say who may use its keys, and no other account may), keys of
//! other kinds than symmetric ones, imported material, keys of several regions, and calls that encrypt for the caller.

use hearth_api::page::{Page, paginate};
use hearth_api::{ApiError, ErrorCode};

use super::serve;
use crate::app::App;
use crate::state::{KmsAlias, KmsKey, Scope, State, Tx};

mod aliases;
mod life;
mod rotation;
mod tags;

serve! { kms_server::Kms as Kms {
    create_key(CreateKeyRequest) -> CreateKeyResponse: life::create;
    describe_key(DescribeKeyRequest) -> DescribeKeyResponse: life::describe;
    list_keys(ListKeysRequest) -> ListKeysResponse: life::list;
    enable_key(EnableKeyRequest) -> EnableKeyResponse: life::enable;
    disable_key(DisableKeyRequest) -> DisableKeyResponse: life::disable;
    schedule_key_deletion(ScheduleKeyDeletionRequest) -> ScheduleKeyDeletionResponse: life::schedule_deletion;
    cancel_key_deletion(CancelKeyDeletionRequest) -> CancelKeyDeletionResponse: life::cancel_deletion;
    update_key_description(UpdateKeyDescriptionRequest) -> UpdateKeyDescriptionResponse: life::update_description;
    create_alias(CreateAliasRequest) -> CreateAliasResponse: aliases::create;
    update_alias(UpdateAliasRequest) -> UpdateAliasResponse: aliases::update;
    delete_alias(DeleteAliasRequest) -> DeleteAliasResponse: aliases::delete;
    list_aliases(ListAliasesRequest) -> ListAliasesResponse: aliases::list;
    enable_key_rotation(EnableKeyRotationRequest) -> EnableKeyRotationResponse: rotation::enable;
    disable_key_rotation(DisableKeyRotationRequest) -> DisableKeyRotationResponse: rotation::disable;
    get_key_rotation_status(GetKeyRotationStatusRequest) -> GetKeyRotationStatusResponse: rotation::status;
    rotate_key_on_demand(RotateKeyOnDemandRequest) -> RotateKeyOnDemandResponse: rotation::rotate;
    tag_resource(TagResourceRequest) -> TagResourceResponse: tags::tag;
    untag_resource(UntagResourceRequest) -> UntagResourceResponse: tags::untag;
    list_resource_tags(ListResourceTagsRequest) -> ListResourceTagsResponse: tags::list;
} }

fn not_found(message: String) -> ApiError {
    ApiError::new(ErrorCode::NotFoundException, message)
}

/// The key that a request names by its id or ARN.
///
/// # Errors
/// `NotFoundException`.
fn by_id<'s>(app: &App, state: &'s State, given: &str) -> Result<&'s KmsKey, ApiError> {
    let scope = app.scope();
    if given.starts_with(KmsAlias::PREFIX) || given.contains(":alias/") {
        return Err(not_found(format!(
            "Invalid keyId '{given:.300}': this call takes the id or the ARN of a key."
        )));
    }
    let found = state.kms_key(&scope, given);
    found.ok_or_else(|| {
        let id = given.rsplit("key/").next().unwrap_or(given);
        let (region, account) = (scope.region(), scope.account_id());
        not_found(format!(
            "Key 'arn:aws:kms:{region}:{account}:key/{id:.300}' does not exist"
        ))
    })
}

/// A key that the caller may change.
///
/// # Errors
/// `NotFoundException`; `AccessDeniedException`: the cloud has made it.
fn own(app: &App, state: &State, given: &str) -> Result<KmsKey, ApiError> {
    let key = by_id(app, state, given)?;
    match key.is_managed {
        false => Ok(key.clone()),
        true => Err(ApiError::new(
            ErrorCode::AccessDenied,
            format!("{} is managed by AWS: it cannot be changed.", key.arn()),
        )),
    }
}

/// A key with an id, within a transaction.
///
/// # Errors
/// `NotFoundException`: it has gone meanwhile.
fn found(state: &State, scope: &Scope, id: &str) -> Result<KmsKey, ApiError> {
    let key = state.kms_key(scope, id).cloned();
    key.ok_or_else(|| not_found(format!("Key '{id}' does not exist")))
}

/// # Errors
/// `KMSInvalidStateException`: it is to be deleted.
fn refuse_deletion(key: &KmsKey) -> Result<(), ApiError> {
    match key.deletion {
        None => Ok(()),
        Some(_) => Err(ApiError::new(
            ErrorCode::KmsInvalidStateException,
            format!("{} is pending deletion.", key.arn()),
        )),
    }
}

/// # Errors
/// `KMSInvalidStateException`, `DisabledException`.
fn refuse_unusable(key: &KmsKey) -> Result<(), ApiError> {
    refuse_deletion(key)?;
    match key.can_be_used() {
        true => Ok(()),
        false => Err(ApiError::new(
            ErrorCode::DisabledException,
            format!("{} is disabled.", key.arn()),
        )),
    }
}

/// Writes a changed key.
fn put(tx: &mut Tx<'_>, key: KmsKey) {
    tx.audit(serde_json::json!({ "key": key.arn(), "state": key.state() }));
    tx.event("kms-key.modified", &key.id);
    tx.put(key);
}

/// Changes a key in a transaction. Answers it.
async fn change(
    app: &App,
    given: String,
    change: impl FnOnce(&mut KmsKey, i64) -> Result<(), ApiError> + Send + 'static,
) -> Result<KmsKey, ApiError> {
    let id = own(app, &app.state(), &given)?.id;
    let scope = app.scope();
    app.store
        .transact(move |tx| {
            let mut key = found(tx, &scope, &id)?;
            change(&mut key, tx.now())?;
            put(tx, key.clone());
            Ok(key)
        })
        .await
}

/// A page of items that are sorted by their keys, and the marker of the next; empty: there are no more.
///
/// # Errors
/// `ValidationException`, `InvalidMarkerException`.
fn page<S, T>(
    items: impl IntoIterator<Item = S>,
    (usual, most): (i32, i32),
    limit: Option<i32>,
    marker: &str,
    key: impl Fn(&S) -> String,
    tell: impl Fn(S) -> T,
) -> Result<(Vec<T>, String), ApiError> {
    let page = Page::of_at_most(most, Some(limit.unwrap_or(usual)), marker);
    paginate(items, page, key, |item| Some(tell(item))).map_err(|error| match error.code {
        ErrorCode::InvalidNextToken => ApiError::new(
            ErrorCode::InvalidMarkerException,
            "The marker is not one that this call answered.",
        ),
        _ => error,
    })
}
