//! Join tokens: secrets that admit hosts. `hearthd join-token` makes these calls.

use hearth_api::join::JoinToken as Text;
use hearth_api::v1::{
    CreateJoinTokenRequest, CreateJoinTokenResponse, JoinToken as Told, ListJoinTokensResponse,
    RevokeJoinTokensRequest, RevokeJoinTokensResponse,
};
use hearth_api::{ApiError, ErrorCode, Kind};
use serde_json::json;

use super::input;
use crate::app::App;
use crate::state::{JoinToken, Tx};
use crate::store::now;
use crate::views;

/// Seconds that a token admits hosts at most: 30 days.
const LONGEST: i64 = 30 * 24 * 3600;
/// Hosts that one token admits at most.
const MOST_USES: i32 = 1000;
/// Tokens that admit hosts at the same time.
const MOST_TOKENS: usize = 10_000;
/// Expired tokens are kept for a while, so that whoever tries one is told that it expired.
const KEEP_EXPIRED_MS: i64 = 24 * 3600 * 1000;

pub(super) async fn create(
    app: &App,
    request: CreateJoinTokenRequest,
) -> Result<CreateJoinTokenResponse, ApiError> {
    if !(1..=LONGEST).contains(&request.expires_in_seconds) {
        return Err(ApiError::invalid_value(
            "ExpiresInSeconds",
            request.expires_in_seconds,
            format!("Expecting 1 to {LONGEST}."),
        ));
    }
    let host_id = match request.host_id.as_str() {
        "" => None,
        id => Some(input::id(Kind::Host, id, "HostId")?.to_string()),
    };
    let uses = match (request.uses, &host_id) {
        (0, _) | (1, Some(_)) => 1,
        (uses @ 1..=MOST_USES, None) => uses.unsigned_abs(),
        (uses, _) => {
            return Err(ApiError::invalid_value(
                "Uses",
                uses,
                format!("Expecting 1 to {MOST_USES}; 1 for a host that joins again."),
            ));
        }
    };
    let secret = hex::encode(rand::random::<[u8; 32]>());
    let secret_hash = blake3::hash(secret.as_bytes()).to_hex().to_string();
    let members = app.store.members().borrow().clone();
    let token = app
        .join_tokens
        .token(secret, &request.endpoint, &members)
        .to_string();
    if token.parse::<Text>().is_err() {
        let expected = "Expecting HOST:PORT, which agents dial.";
        return Err(ApiError::invalid_value("Endpoint", &request.endpoint, expected));
    }
    let expires_in = request.expires_in_seconds * 1000;
    app.store
        .transact(move |tx| {
            if let Some(host_id) = &host_id
                && tx.host(host_id).is_none()
            {
                return Err(Kind::Host.not_found(&[host_id]));
            }
            drop_expired(tx);
            if tx.count::<JoinToken>() >= MOST_TOKENS {
                return Err(ApiError::new(
                    ErrorCode::ResourceLimitExceeded,
                    format!("There are {MOST_TOKENS} join tokens, as many as may be: revoke some."),
                ));
            }
            let token = JoinToken {
                id: format!("join-{:08x}", rand::random::<u32>()),
                secret_hash,
                host_id,
                uses,
                uses_left: uses,
                created_at: tx.now(),
                expires_at: tx.now().saturating_add(expires_in),
            };
            tx.audit(json!({ "token": token.id, "uses": token.uses, "host": token.host_id }));
            tx.put(token);
            Ok(())
        })
        .await?;
    Ok(CreateJoinTokenResponse { token })
}

fn drop_expired(tx: &mut Tx<'_>) {
    let long_ago = tx.now() - KEEP_EXPIRED_MS;
    let expired: Vec<String> = tx
        .all::<JoinToken>()
        .filter(|token| token.expires_at < long_ago)
        .map(|token| token.id.clone())
        .collect();
    tx.remove_all::<JoinToken>(expired);
}

pub(super) fn list(app: &App) -> ListJoinTokensResponse {
    let state = app.state();
    let tokens = state.usable_tokens(now()).into_iter().map(|token| Told {
        join_token_id: token.id.clone(),
        uses: token.uses.cast_signed(),
        uses_left: token.uses_left.cast_signed(),
        host_id: token.host_id.clone().unwrap_or_default(),
        expiration_time: Some(views::timestamp(token.expires_at)),
    });
    ListJoinTokensResponse {
        join_tokens: tokens.collect(),
    }
}

/// Hosts that joined stay.
pub(super) async fn revoke(
    app: &App,
    request: RevokeJoinTokensRequest,
) -> Result<RevokeJoinTokensResponse, ApiError> {
    app.store
        .transact(move |tx| {
            let revoked = match (request.token.as_str(), request.all) {
                ("", true) => tx.revoke_tokens(),
                ("", false) => return Err(ApiError::missing("Token")),
                (_, true) => return Err(ApiError::combination("Token", "All")),
                (token, false) => revoke_one(tx, token)?,
            };
            tx.audit(json!({ "tokens": revoked }));
            Ok(RevokeJoinTokensResponse {
                revoked: i32::try_from(revoked.len()).unwrap_or(i32::MAX),
            })
        })
        .await
}

/// A token by its id or by itself.
fn revoke_one(tx: &mut Tx<'_>, token: &str) -> Result<Vec<String>, ApiError> {
    let id = match token.parse::<Text>() {
        Ok(token) => tx.join_token(&token.secret).map(|token| token.id.clone()),
        Err(_) => Some(token.to_owned()),
    };
    match id {
        Some(id) if tx.remove::<JoinToken>(&id) => Ok(vec![id]),
        _ => Err(ApiError::new(
            ErrorCode::InvalidParameterValue,
            "there is no such token: `hearthd join-token --list` lists those that there are",
        )),
    }
}
