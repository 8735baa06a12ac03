//! What a signature of version 4 is made over.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>
//!
//! The crate reads a request, and says what is wrong with it in AWS's order. Two things of version 0.11.4 are done here instead:
//! - It sorts parameters as `name=value`. `Value.10` comes before `Value.1` then, and AWS sorts by the name alone.
//! - It does not decode the credential and the token of a presigned request, and refuses all of them.

use aws_lc_rs::digest;
use http::header::AUTHORIZATION;
use http::request::Parts;
use scratchstack_aws_signature::auth::SigV4Authenticator;
use scratchstack_aws_signature::canonical::{CanonicalRequest, unescape_uri_encoding};
use scratchstack_aws_signature::{SignatureError, VecSignedHeaderRequirements};

/// A request's signature, to be validated.
///
/// # Errors
/// It has none, or not as it should be.
pub(super) fn authenticator(
    head: &Parts,
    request: &CanonicalRequest,
) -> Result<SigV4Authenticator, SignatureError> {
    let parameters = request.get_auth_parameters(&must_be_signed(head))?;
    let mut builder = parameters.builder.clone();
    let hash = digest::digest(&digest::SHA256, &canonical(request, &parameters.signed_headers));
    let mut sha256 = [0; digest::SHA256_OUTPUT_LEN];
    sha256.copy_from_slice(hash.as_ref());
    builder.canonical_request_sha256(sha256);
    if !head.headers.contains_key(AUTHORIZATION) {
        if let Some(credential) = builder.get_credential().map(unescape_uri_encoding) {
            builder.credential(credential);
        }
        if let Some(token) = builder.get_session_token().map(unescape_uri_encoding) {
            builder.session_token(token);
        }
    }
    let date = request
        .get_authenticator_from_auth_parameters(parameters)?
        .request_timestamp();
    builder.request_timestamp(date);
    builder
        .build()
        .map_err(|error| SignatureError::IncompleteSignature(error.to_string()))
}

/// Headers that change what is done. A session token may be added after signing: only the secret that comes with it is right.
fn must_be_signed(head: &Parts) -> VecSignedHeaderRequirements {
    let mut headers = VecSignedHeaderRequirements::default();
    for name in head.headers.keys().map(http::HeaderName::as_str) {
        if name.starts_with("x-amz-") && name != "x-amz-security-token" {
            headers.add_always_present(name);
        }
    }
    headers
}

fn canonical(request: &CanonicalRequest, signed_headers: &[String]) -> Vec<u8> {
    let mut parameters: Vec<(&str, &str)> = request
        .query_parameters()
        .iter()
        .filter(|(name, _)| *name != "X-Amz-Signature")
        .flat_map(|(name, values)| values.iter().map(|value| (name.as_str(), value.as_str())))
        .collect();
    parameters.sort_unstable();
    let parameters: Vec<String> = parameters
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let (method, path) = (request.request_method(), request.canonical_path());
    let mut text = format!("{method}\n{path}\n{}\n", parameters.join("&")).into_bytes();
    for name in signed_headers {
        if let Some(values) = request.headers().get(name) {
            text.extend_from_slice(name.as_bytes());
            text.push(b':');
            text.extend(values.join(&b','));
            text.push(b'\n');
        }
    }
    text.extend(format!("\n{}\n{}", signed_headers.join(";"), request.body_sha256()).into_bytes());
    text
}
