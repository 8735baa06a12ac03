//! Signature Version 2, by which libcloud and other old clients sign. No published crate verifies it.
//! <https://docs.aws.amazon.com/AmazonSimpleDB/latest/DeveloperGuide/HMACAuth.html>
//!
//! An HMAC over the method, the host, the path and all parameters, in the order of their names, is itself a parameter. There is
//! no scope: neither a region nor a service is signed, and requests are EC2's.

use std::fmt::Write as _;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::Request;
use http::header::{AUTHORIZATION, HOST};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use scratchstack_aws_signature::SignatureError;

use super::{Keys, SKEW, refusal};
use crate::face::is_form;

const SIGNATURE: &str = "Signature";

/// The parameters of a request, by name.
#[derive(Debug)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// `None`: the request is not signed by this version.
    pub(super) fn of(request: &Request<bytes::Bytes>) -> Option<Parameters> {
        if request.headers().contains_key(AUTHORIZATION) {
            return None;
        }
        let query = request.uri().query().unwrap_or_default().as_bytes();
        let form = match is_form(request.headers()) {
            true => &request.body()[..],
            false => &[],
        };
        let parameters = form_urlencoded::parse(query).chain(form_urlencoded::parse(form));
        let mut parameters: Vec<(String, String)> = parameters
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        // In the order of bytes.
        parameters.sort_unstable();
        let parameters = Parameters(parameters);
        let is_signed =
            parameters.named("SignatureVersion").is_some() || parameters.named(SIGNATURE).is_some();
        (is_signed && parameters.named("X-Amz-Algorithm").is_none()).then_some(parameters)
    }

    fn named(&self, wanted: &str) -> Option<&str> {
        let found = self.0.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.as_str())
    }

    /// # Errors
    /// The parameter is absent, or there twice.
    fn one(&self, wanted: &str) -> Result<&str, SignatureError> {
        match self.0.iter().filter(|(name, _)| name == wanted).count() {
            1 => Ok(self.named(wanted).unwrap_or_default()),
            _ => Err(incomplete(&format!("the parameter {wanted} must be there once"))),
        }
    }

    /// What is signed.
    fn canonical(&self, request: &Request<bytes::Bytes>) -> String {
        let host = request
            .headers()
            .get(HOST)
            .and_then(|host| host.to_str().ok())
            .unwrap_or_default();
        let path = match request.uri().path() {
            "" => "/",
            path => path,
        };
        let mut text = format!("{}\n{}\n{path}\n", request.method(), host.to_ascii_lowercase());
        let signed = self.0.iter().filter(|(name, _)| name != SIGNATURE);
        for (number, (name, value)) in signed.enumerate() {
            if number > 0 {
                text.push('&');
            }
            escape(name, &mut text);
            text.push('=');
            escape(value, &mut text);
        }
        text
    }
}

/// Who has signed a request. `now`: in seconds since 1970.
///
/// # Errors
/// The same as of version 4.
pub(super) fn verify<K: Keys>(
    request: &Request<bytes::Bytes>,
    parameters: &Parameters,
    keys: &K,
    now: i64,
) -> Result<K::Signer, SignatureError> {
    if parameters.one("SignatureVersion")? != "2" {
        return Err(incomplete("SignatureVersion must be 2"));
    }
    let algorithm = match parameters.one("SignatureMethod")? {
        "HmacSHA256" => hmac::HMAC_SHA256,
        "HmacSHA1" => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        _ => return Err(incomplete("SignatureMethod must be HmacSHA256 or HmacSHA1")),
    };
    let access_key_id = parameters.one("AWSAccessKeyId")?;
    let signature = BASE64_STANDARD
        .decode(parameters.one(SIGNATURE)?)
        .map_err(|_| incomplete("Signature must be base64"))?;
    current(parameters, now)?;
    let found = keys.find(access_key_id, parameters.named("SecurityToken"));
    let (secret, signer) = found.map_err(refusal)?;
    let key = hmac::Key::new(algorithm, secret.as_bytes());
    // In constant time.
    hmac::verify(&key, parameters.canonical(request).as_bytes(), &signature)
        .map_err(|_| SignatureError::SignatureDoesNotMatch(None))?;
    Ok(signer)
}

/// # Errors
/// The request is too old, or too early.
fn current(parameters: &Parameters, now: i64) -> Result<(), SignatureError> {
    let expired = |what: &str| Err(SignatureError::SignatureDoesNotMatch(Some(what.to_owned())));
    match (parameters.named("Timestamp"), parameters.named("Expires")) {
        (Some(_), None) => {
            let at = seconds(parameters.one("Timestamp")?)?;
            if at < now - SKEW.num_seconds() {
                return expired("Signature expired: Timestamp is more than 15 minutes ago.");
            }
            if at > now + SKEW.num_seconds() {
                return expired("Signature not yet current: Timestamp is more than 15 minutes from now.");
            }
        }
        (None, Some(_)) => {
            if seconds(parameters.one("Expires")?)? < now {
                return expired("Signature expired: Expires has passed.");
            }
        }
        _ => return Err(incomplete("there must be Timestamp or Expires")),
    }
    Ok(())
}

/// Since 1970. A time without a zone is in UTC.
fn seconds(text: &str) -> Result<i64, SignatureError> {
    let with_zone = text.parse::<Timestamp>();
    let without = || {
        text.parse::<DateTime>()
            .and_then(|time| time.to_zoned(TimeZone::UTC))
    };
    with_zone
        .or_else(|_| without().map(|time| time.timestamp()))
        .map(Timestamp::as_second)
        .map_err(|_| incomplete("a time as 2026-11-26T07:00:00Z is expected"))
}

fn incomplete(why: &str) -> SignatureError {
    SignatureError::IncompleteSignature(format!(
        "The request is not signed as Signature Version 2 says: {why}."
    ))
}

/// As RFC 3986 has it.
fn escape(text: &str, out: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte.into()),
            // A `String` takes all that is written.
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
}
