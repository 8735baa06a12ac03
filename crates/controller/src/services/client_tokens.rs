//! ClientTokens: a call is done once under a token.
//! <https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-idempotency.html>

use hearth_api::{ApiError, ErrorCode};

use crate::state::{ClientToken, Scope, State, Tx};

/// What was done under a token; `None` for a token that is empty or new.
///
/// # Errors
/// `IdempotentParameterMismatch`: it was done with other parameters.
pub(super) fn recall(
    state: &State,
    token: &str,
    token_id: &str,
    hash: &str,
) -> Result<Option<ClientToken>, ApiError> {
    if token.is_empty() {
        return Ok(None);
    }
    match state.get::<ClientToken>(token_id) {
        Some(before) if before.parameters_hash != hash => Err(ApiError::new(
            ErrorCode::IdempotentParameterMismatch,
            format!(
                "The client token '{token}' was used with other parameters, for {}. Repeat the call unchanged, or \
                 choose a new token.",
                before.resource_id
            ),
        )),
        before => Ok(before.cloned()),
    }
}

/// Keeps what was done under a token, unless that is empty.
pub(super) fn keep(
    tx: &mut Tx<'_>,
    scope: &Scope,
    token: &str,
    token_id: String,
    hash: String,
    resource_id: &str,
) {
    if token.is_empty() {
        return;
    }
    let created_at = tx.now();
    tx.put(ClientToken {
        id: token_id,
        account_id: scope.account_id().to_owned(),
        region: scope.region().to_owned(),
        parameters_hash: hash,
        resource_id: resource_id.to_owned(),
        created_at,
        outlived_at: None,
    });
}
