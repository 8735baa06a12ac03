//! Whether volumes are encrypted that do not ask for it, and under which KMS key.
//! <https://docs.aws.amazon.com/ebs/latest/userguide/encryption-by-default.html>

use hearth_api::ApiError;
use hearth_api::v1::*;

use super::change;
use crate::app::App;
use crate::keys;
use crate::services::encryption;
use crate::state::{KmsAlias, State};

async fn set(app: &App, is_on: bool) -> Result<bool, ApiError> {
    change(app, move |settings| {
        settings.ebs_encryption = is_on;
        Ok(())
    })
    .await?;
    Ok(is_on)
}

pub(super) async fn enable(
    app: &App,
    _: EnableEbsEncryptionByDefaultRequest,
) -> Result<EnableEbsEncryptionByDefaultResult, ApiError> {
    Ok(EnableEbsEncryptionByDefaultResult {
        ebs_encryption_by_default: set(app, true).await?,
    })
}

pub(super) async fn disable(
    app: &App,
    _: DisableEbsEncryptionByDefaultRequest,
) -> Result<DisableEbsEncryptionByDefaultResult, ApiError> {
    Ok(DisableEbsEncryptionByDefaultResult {
        ebs_encryption_by_default: set(app, false).await?,
    })
}

pub(super) async fn get(
    app: &App,
    _: GetEbsEncryptionByDefaultRequest,
) -> Result<GetEbsEncryptionByDefaultResult, ApiError> {
    let is_on = app.state().account_settings(&app.scope()).ebs_encryption;
    Ok(GetEbsEncryptionByDefaultResult {
        ebs_encryption_by_default: is_on,
        sse_type: if is_on { "sse-kms" } else { "" }.to_owned(),
    })
}

/// The ARN of the default key; the name of the one that is not made yet.
fn told(app: &App, state: &State) -> String {
    let scope = app.scope();
    let chosen = state.account_settings(&scope).ebs_key;
    let chosen = chosen.as_deref().unwrap_or(KmsAlias::EBS);
    let key = state.kms_key(&scope, chosen);
    key.map_or_else(|| chosen.to_owned(), |key| key.arn())
}

pub(super) async fn get_key(
    app: &App,
    _: GetEbsDefaultKmsKeyIdRequest,
) -> Result<GetEbsDefaultKmsKeyIdResult, ApiError> {
    Ok(GetEbsDefaultKmsKeyIdResult {
        kms_key_id: told(app, &app.state()),
    })
}

pub(super) async fn modify_key(
    app: &App,
    request: ModifyEbsDefaultKmsKeyIdRequest,
) -> Result<ModifyEbsDefaultKmsKeyIdResult, ApiError> {
    if request.kms_key_id.is_empty() {
        return Err(ApiError::missing("KmsKeyId"));
    }
    let state = app.state();
    let key = encryption::named(&state, &app.scope(), &request.kms_key_id)?;
    keys::check(key)?;
    let kms_key_id = key.arn();
    let chosen = match key.account_id == app.account() {
        true => key.id.clone(),
        false => kms_key_id.clone(),
    };
    change(app, move |settings| {
        settings.ebs_key = Some(chosen);
        Ok(())
    })
    .await?;
    Ok(ModifyEbsDefaultKmsKeyIdResult { kms_key_id })
}

pub(super) async fn reset_key(
    app: &App,
    _: ResetEbsDefaultKmsKeyIdRequest,
) -> Result<ResetEbsDefaultKmsKeyIdResult, ApiError> {
    change(app, |settings| {
        settings.ebs_key = None;
        Ok(())
    })
    .await?;
    Ok(ResetEbsDefaultKmsKeyIdResult {
        kms_key_id: told(app, &app.state()),
    })
}
