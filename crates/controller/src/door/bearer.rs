//! Who sends a gRPC request over a network: its token says so ([`hearth_api::token`]).
//!
//! A token is read no further than its key id until its signature is known to be right.

use hearth_api::token::{AUDIENCE, Claims, LONGEST, SESSION_TOKEN};
use hearth_api::{ApiError, ErrorCode};
use hearth_ec2::signature::{Keys, Unusable};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};

/// Bytes of a token, and of a session token.
const MAX_TOKEN: usize = 4096;
/// Seconds by which the clocks of both sides may differ.
const SKEW: i64 = 300;

/// Who has signed a request's token. Both credentials leave the headers, so that nobody behind sees them. `now`: seconds since
/// 1970.
///
/// # Errors
/// `AuthFailure`: there is no token, or it is none that would be taken of anybody. `InvalidClientTokenId`: nothing may be
/// signed with its key. `SignatureDoesNotMatch`. `ExpiredToken`.
pub fn signer<K: Keys>(headers: &mut HeaderMap, keys: &K, now: i64) -> Result<K::Signer, ApiError> {
    let authorization = taken(headers, AUTHORIZATION)?.ok_or_else(|| {
        failure("Requests over a network have a token: metadata authorization, with the value Bearer TOKEN.")
    })?;
    let session_token = taken(headers, HeaderName::from_static(SESSION_TOKEN))?;
    let token = authorization.split_once(' ').and_then(|(scheme, token)| {
        let token = token.trim_start();
        scheme.eq_ignore_ascii_case("bearer").then_some(token)
    });
    let token = token.ok_or_else(|| failure("The metadata authorization must be Bearer and a token."))?;
    let header = jsonwebtoken::decode_header(token).map_err(|_| failure("The token is no JWT."))?;
    if header.alg != Algorithm::HS256 {
        return Err(failure("The token's algorithm must be HS256."));
    }
    if header.crit.is_some() {
        return Err(failure("The token's header demands what is not understood here."));
    }
    let key_id = header.kid.unwrap_or_default();
    let found = keys.find(&key_id, session_token.as_deref());
    let (secret, signer) = found.map_err(|unusable| match unusable {
        Unusable::Unknown => ApiError::new(
            ErrorCode::InvalidClientTokenId,
            "The access key, or the session token beside it, is not known, or it is inactive.",
        ),
        Unusable::Expired => ended("The session of these credentials has ended: get new ones."),
    })?;
    let key = DecodingKey::from_secret(secret.as_bytes());
    let decoded = jsonwebtoken::decode::<Claims>(token, &key, &signature_alone());
    let claims = decoded.map_err(|error| match error.kind() {
        ErrorKind::InvalidSignature => ApiError::new(
            ErrorCode::SignatureDoesNotMatch,
            "The token's signature is wrong: check the secret access key.",
        ),
        _ => failure(
            "The token must have the claims aud, iat and exp, with times as whole seconds since 1970.",
        ),
    })?;
    check(&claims.claims, now)?;
    Ok(signer)
}

/// What a token claims is looked at by [`check`].
fn signature_alone() -> Validation {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation
}

fn check(claims: &Claims, now: i64) -> Result<(), ApiError> {
    if claims.aud != AUDIENCE {
        return Err(failure(&format!("The token's claim aud must be {AUDIENCE:?}.")));
    }
    let life = claims.exp.checked_sub(claims.iat);
    if !life.is_some_and(|life| (1..=LONGEST).contains(&life)) {
        return Err(failure(&format!(
            "The token's claim exp must be at most {LONGEST} seconds after its claim iat, and not before it."
        )));
    }
    if claims.iat.max(claims.nbf.unwrap_or(i64::MIN)) > now.saturating_add(SKEW) {
        return Err(failure("The token is not valid yet: check this machine's clock."));
    }
    if claims.exp.saturating_add(SKEW) <= now {
        return Err(ended(
            "The token has expired: sign a new one, and check this machine's clock.",
        ));
    }
    Ok(())
}

/// A header's value, out of the headers.
fn taken(headers: &mut HeaderMap, name: HeaderName) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all(&name).iter();
    let value = values.next().cloned();
    if values.next().is_some() {
        return Err(failure(&format!("The metadata {name} is there twice.")));
    }
    headers.remove(&name);
    let Some(value) = value else { return Ok(None) };
    if value.len() > MAX_TOKEN {
        let message = format!("The metadata {name} has at most {MAX_TOKEN} bytes.");
        return Err(failure(&message));
    }
    let text = value.to_str().map(str::to_owned);
    text.map(Some)
        .map_err(|_| failure(&format!("The metadata {name} must be ASCII.")))
}

fn failure(message: &str) -> ApiError {
    ApiError::new(ErrorCode::AuthFailure, message)
}

fn ended(message: &str) -> ApiError {
    ApiError::new(ErrorCode::ExpiredToken, message)
}

#[cfg(test)]
mod tests;
