//! Presigned requests: `X-Amz-Expires` says for how many seconds a signature in the query is valid.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use http::header::AUTHORIZATION;
use http::request::Parts;
use scratchstack_aws_signature::SignatureError;

/// Seconds of a week.
const LONGEST: i64 = 604_800;

/// The time that a request's date is compared with. The crate compares it with 15 minutes to both sides. A presigned request
/// may come later by as much as it says.
///
/// # Errors
/// It says nothing that can be.
pub(super) fn arrival(head: &Parts, now: DateTime<Utc>) -> Result<DateTime<Utc>, SignatureError> {
    if head.headers.contains_key(AUTHORIZATION) {
        return Ok(now);
    }
    let query = head.uri.query().unwrap_or_default();
    let first = |wanted| {
        let mut parameters = form_urlencoded::parse(query.as_bytes());
        parameters
            .find(|(name, _)| name == wanted)
            .map(|(_, value)| value)
    };
    let Some(expires) = first("X-Amz-Expires") else {
        return Ok(now);
    };
    let refuse = |why| {
        Err(SignatureError::IncompleteSignature(format!(
            "X-Amz-Expires {why}"
        )))
    };
    let expires = match expires.parse() {
        Ok(expires) if expires < 1 => return refuse("must be at least one second."),
        Ok(expires) if expires > LONGEST => return refuse("must be at most 604800 seconds, a week."),
        Ok(expires) => TimeDelta::seconds(expires),
        Err(_) => return refuse("must be a number."),
    };
    let date = first("X-Amz-Date");
    let date = date.and_then(|date| NaiveDateTime::parse_from_str(&date, "%Y%m%dT%H%M%SZ").ok());
    // What is wrong with a date is said by the crate.
    let Some(date) = date else {
        return Ok(now);
    };
    let late = (now - date.and_utc()).clamp(TimeDelta::zero(), expires);
    Ok(now - late)
}
