//! Who sent a request: Signature Version 4, in a header or in the query, or [Version 2](v2).
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html>

mod canonical;
mod presigned;
mod v2;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{Request, StatusCode};
use scratchstack_aws_signature::canonical::CanonicalRequest;
use scratchstack_aws_signature::{
    GetSigningKeyRequest, GetSigningKeyResponse, KSecretKey, SignatureError, SignatureOptions,
    service_for_signing_key_fn,
};
use tower::BoxError;

use crate::model::Service;

/// The secrets of access keys.
pub trait Keys: Send + Sync {
    /// Who has a key, in the extensions of the requests that services get.
    type Signer: Clone + Send + Sync + 'static;

    /// The secret of a key and who has it. Credentials that end have a session token.
    ///
    /// # Errors
    /// The key may not be used.
    fn find(
        &self,
        access_key_id: &str,
        session_token: Option<&str>,
    ) -> Result<(String, Self::Signer), Unusable>;
}

/// Why a key may not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    /// There is none, it is inactive, or the token does not go with it.
    Unknown,
    Expired,
}

/// What a request says it was signed with: `AKIA.../20261127/us-east-1/ec2/aws4_request`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    pub access_key_id: String,
    pub region: String,
    pub service: String,
}

impl Scope {
    /// `None`: the request is not signed, or not as it should be.
    pub fn of(head: &Parts) -> Option<Scope> {
        let header = head
            .headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let credential = match header {
            Some(header) => {
                let (_, from) = header.split_once("Credential=")?;
                from.split([',', ' ']).next()?.to_owned()
            }
            None => {
                let query = head.uri.query()?.as_bytes();
                let mut parameters = form_urlencoded::parse(query);
                parameters
                    .find(|(name, _)| name == "X-Amz-Credential")?
                    .1
                    .into_owned()
            }
        };
        let mut parts = credential.splitn(5, '/').map(str::to_owned);
        let (access_key_id, _date) = (parts.next()?, parts.next()?);
        let (region, service) = (parts.next()?, parts.next()?);
        (parts.next()? == "aws4_request").then_some(Scope {
            access_key_id,
            region,
            service,
        })
    }
}

/// Why a request is not believed to be its sender's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    pub code: &'static str,
    pub message: String,
    pub status: StatusCode,
}

/// The request whose signature is right, and who has signed it.
///
/// # Errors
/// As AWS has them, in AWS's order.
pub async fn verify<K: Keys>(
    request: Request<Bytes>,
    service: Service,
    region: &str,
    keys: &K,
) -> Result<(Parts, Bytes, K::Signer), Denied> {
    verify_at(Utc::now(), request, service, region, keys).await
}

/// The same, at a time of a test's.
///
/// # Errors
/// The same.
#[doc(hidden)]
pub async fn verify_at<K: Keys>(
    now: DateTime<Utc>,
    request: Request<Bytes>,
    service: Service,
    region: &str,
    keys: &K,
) -> Result<(Parts, Bytes, K::Signer), Denied> {
    let denied = |error: BoxError| denied(service, &error);
    // Without a scope, a request of version 2 is EC2's.
    if let (Service::Ec2, Some(parameters)) = (service, v2::Parameters::of(&request)) {
        let signer = v2::verify(&request, &parameters, keys, now.timestamp());
        let signer = signer.map_err(|error| denied(error.into()))?;
        let (head, body) = request.into_parts();
        return Ok((head, body, signer));
    }
    let (head, body) = request.into_parts();
    let access_key_id = Scope::of(&head)
        .map(|scope| scope.access_key_id)
        .unwrap_or_default();
    let token = session_token(&head);
    let (secret, signer) = match keys.find(&access_key_id, token.as_deref()) {
        Ok((secret, signer)) => (Ok(secret), Some(signer)),
        Err(unusable) => (Err(unusable), None),
    };
    let request = Request::from_parts(head, body);
    // The token that was looked at is the one that is signed.
    let secret = move |signed: Option<&str>| match signed == token.as_deref() {
        true => secret.clone(),
        false => Err(Unusable::Unknown),
    };
    let verified = authentic(now, request, service.name(), region, secret).await;
    let (head, body) = verified.map_err(denied)?;
    let signer = signer.ok_or_else(|| denied(refusal(Unusable::Unknown).into()))?;
    Ok((head, body, signer))
}

/// What goes with credentials that end, in a header or in the query.
fn session_token(head: &Parts) -> Option<String> {
    const NAME: &str = "X-Amz-Security-Token";
    if let Some(token) = head.headers.get(NAME) {
        return token.to_str().ok().map(str::to_owned);
    }
    let mut parameters = form_urlencoded::parse(head.uri.query()?.as_bytes());
    parameters
        .find(|(name, _)| name == NAME)
        .map(|(_, token)| token.into_owned())
}

fn refusal(unusable: Unusable) -> SignatureError {
    const UNKNOWN: &str = "The security token included in the request is invalid.";
    const EXPIRED: &str = "The security token included in the request is expired.";
    match unusable {
        Unusable::Unknown => SignatureError::InvalidClientTokenId(UNKNOWN.to_owned()),
        Unusable::Expired => SignatureError::ExpiredToken(EXPIRED.to_owned()),
    }
}

/// A request that is signed by version 4, with a secret that depends on its session token.
///
/// # Errors
/// A [`SignatureError`].
#[doc(hidden)]
pub async fn authentic(
    now: DateTime<Utc>,
    request: Request<Bytes>,
    service: &str,
    region: &str,
    secret: impl Fn(Option<&str>) -> Result<String, Unusable> + Clone + Send + 'static,
) -> Result<(Parts, Bytes), BoxError> {
    let (head, body) = request.into_parts();
    let now = presigned::arrival(&head, now)?;
    let (canonical, head, body) =
        CanonicalRequest::from_request_parts(head, body, SignatureOptions::default())?;
    let sign = move |request: GetSigningKeyRequest| std::future::ready(signing_key(&secret, &request));
    let mut sign = service_for_signing_key_fn(sign);
    canonical::authenticator(&head, &canonical)?
        .validate_signature(region, service, now, SKEW, &mut sign)
        .await?;
    Ok((head, body))
}

/// By which the clocks of both sides may differ.
const SKEW: TimeDelta = TimeDelta::minutes(15);
fn signing_key(
    secret: impl Fn(Option<&str>) -> Result<String, Unusable>,
    request: &GetSigningKeyRequest,
) -> Result<GetSigningKeyResponse, BoxError> {
    let secret = secret(request.session_token()).map_err(refusal)?;
    let secret: KSecretKey = secret.parse()?;
    let key = secret.to_ksigning(request.request_date(), request.region(), request.service());
    Ok(GetSigningKeyResponse::builder().signing_key(key).build()?)
}

/// EC2 tells less than other services.
fn denied(service: Service, error: &BoxError) -> Denied {
    const FAILURE: &str = "AWS was not able to validate the provided access credentials. Check the access key id, the secret \
                           key and the region.";
    let (code, status) = match error.downcast_ref::<SignatureError>() {
        Some(SignatureError::SignatureDoesNotMatch(Some(why)))
            if service == Service::Ec2 && (why.contains("expired") || why.contains("not yet current")) =>
        {
            ("RequestExpired", StatusCode::BAD_REQUEST)
        }
        Some(SignatureError::SignatureDoesNotMatch(_) | SignatureError::InvalidClientTokenId(_))
            if service == Service::Ec2 =>
        {
            return Denied {
                code: "AuthFailure",
                message: FAILURE.to_owned(),
                status: StatusCode::UNAUTHORIZED,
            };
        }
        Some(SignatureError::SignatureDoesNotMatch(_)) => ("SignatureDoesNotMatch", StatusCode::FORBIDDEN),
        Some(SignatureError::InvalidClientTokenId(_)) => ("InvalidClientTokenId", StatusCode::FORBIDDEN),
        Some(SignatureError::MissingAuthenticationToken(_)) => {
            ("MissingAuthenticationToken", StatusCode::FORBIDDEN)
        }
        Some(SignatureError::IncompleteSignature(_)) => ("IncompleteSignature", StatusCode::BAD_REQUEST),
        Some(SignatureError::MalformedQueryString(_)) => ("MalformedQueryString", StatusCode::BAD_REQUEST),
        Some(SignatureError::ExpiredToken(_)) if service == Service::Ec2 => {
            ("RequestExpired", StatusCode::BAD_REQUEST)
        }
        Some(SignatureError::ExpiredToken(_)) => ("ExpiredToken", StatusCode::FORBIDDEN),
        _ => ("InvalidRequest", StatusCode::BAD_REQUEST),
    };
    Denied {
        code,
        message: error.to_string(),
        status,
    }
}
