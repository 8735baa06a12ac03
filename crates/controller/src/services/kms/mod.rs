//! KMS: keys that seal the data keys of volumes, snapshots and images.
//! <https://docs.aws.amazon.com/kms/latest/APIReference/Welcome.html>
//!
//! Not here: keys of other kinds than symmetric ones, imported material, and keys of several regions.

use hearth_api::page::{Page, paginate};
use hearth_api::{ApiError, ErrorCode};

use super::serve;
use crate::app::App;
use crate::state::{KmsAlias, KmsKey, Scope, State, Tx};

mod aliases;
mod cryptography;
mod grants;
mod life;
mod policies;
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
    encrypt(EncryptRequest) -> EncryptResponse: cryptography::encrypt;
    decrypt(DecryptRequest) -> DecryptResponse: cryptography::decrypt;
    re_encrypt(ReEncryptRequest) -> ReEncryptResponse: cryptography::re_encrypt;
    generate_data_key(GenerateDataKeyRequest) -> GenerateDataKeyResponse: cryptography::data_key;
    generate_data_key_without_plaintext(GenerateDataKeyWithoutPlaintextRequest) -> GenerateDataKeyWithoutPlaintextResponse: cryptography::data_key_without_plaintext;
    generate_random(GenerateRandomRequest) -> GenerateRandomResponse: cryptography::random;
    put_key_policy(PutKeyPolicyRequest) -> PutKeyPolicyResponse: policies::put;
    get_key_policy(GetKeyPolicyRequest) -> GetKeyPolicyResponse: policies::get;
    create_grant(CreateGrantRequest) -> CreateGrantResponse: grants::create;
    list_grants(ListGrantsRequest) -> ListGrantsResponse: grants::list;
    list_retirable_grants(ListRetirableGrantsRequest) -> ListGrantsResponse: grants::list_retirable;
    revoke_grant(RevokeGrantRequest) -> RevokeGrantResponse: grants::revoke;
    retire_grant(RetireGrantRequest) -> RetireGrantResponse: grants::retire;
    list_key_policies(ListKeyPoliciesRequest) -> ListKeyPoliciesResponse: policies::list;
} }

fn not_found(message: String) -> ApiError {
    ApiError::new(ErrorCode::NotFoundException, message)
}

/// The key that a request names by its id or ARN.
///
/// # Errors
/// `NotFoundException`; `AccessDeniedException`: there is none with the ARN in another account.
fn by_id<'s>(app: &App, state: &'s State, given: &str) -> Result<&'s KmsKey, ApiError> {
    if is_alias(given) {
        return Err(not_found(format!(
            "Invalid keyId '{given:.300}': this call takes the id or the ARN of a key."
        )));
    }
    by_any(app, state, given)
}

fn is_alias(given: &str) -> bool {
    given.starts_with(KmsAlias::PREFIX) || given.contains(":alias/")
}

/// The key that a request names by its id, a name, or the ARN of either.
///
/// # Errors
/// As [`by_id`].
fn by_any<'s>(app: &App, state: &'s State, given: &str) -> Result<&'s KmsKey, ApiError> {
    let scope = app.scope();
    let (region, account) = (scope.region(), scope.account_id());
    state.kms_key(&scope, given).ok_or_else(|| {
        let arn = |resource: &str| format!("arn:aws:kms:{region}:{account}:{resource:.300}");
        let own = given.split(':').nth(4).is_none_or(|owner| owner == account);
        let resource = given.rsplit(':').next().unwrap_or(given);
        match (own, is_alias(given)) {
            // Nobody learns which keys there are.
            (false, _) => ApiError::new(
                ErrorCode::AccessDenied,
                format!(
                    "{given:.400} does not exist in this region, or no resource-based policy allows you to use it."
                ),
            ),
            (true, true) => not_found(format!("Alias {} is not found.", arn(resource))),
            (true, false) => {
                let id = resource.rsplit("key/").next().unwrap_or(resource);
                not_found(format!("Key '{}' does not exist", arn(&format!("key/{id}"))))
            }
        }
    })
}

/// A key that the caller may change.
///
/// # Errors
/// As [`by_id`]. `AccessDeniedException`: the cloud has made it, or it is another account's.
fn own(app: &App, state: &State, given: &str) -> Result<KmsKey, ApiError> {
    let key = by_id(app, state, given)?;
    let refused = |why: &str| {
        let message = format!("{} {why}: it cannot be changed.", key.arn());
        Err(ApiError::new(ErrorCode::AccessDenied, message))
    };
    match (key.is_managed, key.account_id == app.account()) {
        (false, true) => Ok(key.clone()),
        (true, _) => refused("is managed by AWS"),
        (false, false) => refused("is another account's"),
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
