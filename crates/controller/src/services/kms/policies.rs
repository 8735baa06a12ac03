//! Who may use a key. A key has one policy, called `default`.
//! <https://docs.aws.amazon.com/kms/latest/developerguide/key-policies.html>

use hearth_api::v1::*;
use hearth_api::{ApiError, ErrorCode};
use hearth_iam::{Kind, Policy};

use super::{by_id, change, own, page, refuse_deletion};
use crate::app::App;
use crate::call::Call;
use crate::iam::{self, Identity};
use crate::state::KmsKey;

const NAME: &str = "default";
/// Policies of a page: as many as nothing says, and the most.
const PAGE: (i32, i32) = (100, 1000);

fn malformed(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::MalformedPolicyDocumentException, message)
}

/// # Errors
/// `NotFoundException`.
fn check_name(given: &str) -> Result<(), ApiError> {
    match given {
        "" | NAME => Ok(()),
        other => Err(super::not_found(format!(
            "No such policy exists: {other}. A key's policy is called {NAME}."
        ))),
    }
}

/// Whether a key may have the policy that it is given here.
///
/// # Errors
/// `MalformedPolicyDocumentException`: it is none, or the caller could not change it afterwards, and does not say that this is
/// meant.
pub(super) fn check(app: &App, key: &KmsKey, bypasses: bool) -> Result<(), ApiError> {
    let policy = Policy::parse(Kind::Key, &iam::policy_of(key));
    policy.map_err(|error| malformed(error.to_string()))?;
    let Some(call) = Call::current().filter(|_| !bypasses) else {
        return Ok(());
    };
    let state = app.state();
    let identity = Identity::current(&state, &app.account())?;
    match iam::denial_by_key(&state, &call, &identity, "kms:PutKeyPolicy", key)? {
        None => Ok(()),
        Some(_) => Err(malformed(
            "The new key policy will not allow you to update the key policy in the future. Name yourself in it, or say \
             BypassPolicyLockoutSafetyCheck.",
        )),
    }
}

pub(super) async fn put(app: &App, request: PutKeyPolicyRequest) -> Result<PutKeyPolicyResponse, ApiError> {
    check_name(&request.policy_name)?;
    let policy = Some(request.policy);
    let key = KmsKey {
        policy: policy.clone(),
        ..own(app, &app.state(), &request.key_id)?
    };
    check(app, &key, request.bypass_policy_lockout_safety_check)?;
    change(app, request.key_id, |key, _| {
        refuse_deletion(key)?;
        key.policy = policy;
        Ok(())
    })
    .await?;
    Ok(PutKeyPolicyResponse {})
}

pub(super) async fn get(app: &App, request: GetKeyPolicyRequest) -> Result<GetKeyPolicyResponse, ApiError> {
    let state = app.state();
    let key = by_id(app, &state, &request.key_id)?;
    check_name(&request.policy_name)?;
    Ok(GetKeyPolicyResponse {
        policy: iam::policy_of(key).into_owned(),
        policy_name: NAME.to_owned(),
    })
}

pub(super) async fn list(
    app: &App,
    request: ListKeyPoliciesRequest,
) -> Result<ListKeyPoliciesResponse, ApiError> {
    let state = app.state();
    by_id(app, &state, &request.key_id)?;
    let name = |name: &&str| (*name).to_owned();
    let (policy_names, next_marker) =
        page([NAME], PAGE, request.limit, &request.marker, name, str::to_owned)?;
    Ok(ListKeyPoliciesResponse {
        policy_names,
        truncated: !next_marker.is_empty(),
        next_marker,
    })
}
