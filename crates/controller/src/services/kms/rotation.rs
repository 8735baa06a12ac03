//! New material for keys: now and then, or when somebody asks for it.
//! <https://docs.aws.amazon.com/kms/latest/developerguide/rotate-keys.html>

use std::sync::Arc;

use hearth_api::v1::*;
use hearth_api::{ApiError, ErrorCode};

use super::{by_id, change, refuse_deletion, refuse_unusable};
use crate::app::App;
use crate::keys;
use crate::views::timestamp;

/// Days between rotations.
const PERIOD: std::ops::RangeInclusive<i32> = 90..=2560;
const USUAL: i32 = 365;
/// Rotations of a key that somebody asks for.
const ON_DEMAND: usize = 25;

pub(super) async fn enable(
    app: &App,
    request: EnableKeyRotationRequest,
) -> Result<EnableKeyRotationResponse, ApiError> {
    let days = request.rotation_period_in_days.unwrap_or(USUAL);
    if !PERIOD.contains(&days) {
        let expected = format!("Expecting {} to {} days.", PERIOD.start(), PERIOD.end());
        return Err(ApiError::invalid_value("RotationPeriodInDays", days, expected));
    }
    change(app, request.key_id, move |key, now| {
        refuse_unusable(key)?;
        key.rotation_days = Some(days.unsigned_abs());
        key.rotates_from = now;
        Ok(())
    })
    .await?;
    Ok(EnableKeyRotationResponse {})
}

pub(super) async fn disable(
    app: &App,
    request: DisableKeyRotationRequest,
) -> Result<DisableKeyRotationResponse, ApiError> {
    change(app, request.key_id, |key, _| {
        refuse_unusable(key)?;
        key.rotation_days = None;
        Ok(())
    })
    .await?;
    Ok(DisableKeyRotationResponse {})
}

pub(super) async fn status(
    app: &App,
    request: GetKeyRotationStatusRequest,
) -> Result<GetKeyRotationStatusResponse, ApiError> {
    let state = app.state();
    let key = by_id(app, &state, &request.key_id)?;
    refuse_deletion(key)?;
    Ok(GetKeyRotationStatusResponse {
        key_rotation_enabled: key.rotation_days.is_some(),
        key_id: key.arn(),
        rotation_period_in_days: key.rotation_days.and_then(|days| i32::try_from(days).ok()),
        next_rotation_date: key.rotation_due().map(timestamp),
    })
}

pub(super) async fn rotate(
    app: &App,
    request: RotateKeyOnDemandRequest,
) -> Result<RotateKeyOnDemandResponse, ApiError> {
    let vault = Arc::clone(&app.vault);
    let key = change(app, request.key_id, move |key, now| {
        refuse_unusable(key)?;
        let asked_for = key.materials.iter().filter(|material| material.on_demand).count();
        if asked_for >= ON_DEMAND {
            let message = format!(
                "{} was rotated {ON_DEMAND} times on demand, which is as often as may be: make another key.",
                key.arn()
            );
            return Err(ApiError::new(ErrorCode::LimitExceededException, message));
        }
        key.materials.push(keys::material(&vault, &key.id, now, true)?);
        Ok(())
    })
    .await?;
    Ok(RotateKeyOnDemandResponse { key_id: key.arn() })
}
