//! What a gRPC request over a network shows for who sends it: a JWT (RFC 7519) that the client signs itself with its access key,
//! by HS256, minutes long. It travels as the metadata `authorization: Bearer TOKEN`. Its header's `kid` is the access key's id.
//! Credentials that end have their session token beside it, as the metadata [`SESSION_TOKEN`].

use std::fmt;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::{Deserialize, Serialize};

/// The claim `aud` of every token.
pub const AUDIENCE: &str = "hearth";
/// Seconds from `iat` to `exp` at most.
pub const LONGEST: i64 = 900;
/// Metadata: the session token of credentials that end.
pub const SESSION_TOKEN: &str = "x-amz-security-token";
/// Metadata: the region that a call is for; without it, the cloud's home region. A call for one that is not there is refused.
pub const REGION: &str = "hearth-region";

/// Seconds that tokens live which this crate signs.
const LIFE: i64 = 300;

/// What a token says. Times are seconds since 1970.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Claims {
    pub aud: String,
    pub iat: i64,
    pub exp: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
}

/// An access key with its secret.
#[derive(Clone)]
pub struct Credentials {
    pub access_key_id: String,
    pub secret_access_key: String,
    /// Of credentials that end.
    pub session_token: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({})", self.access_key_id)
    }
}

impl Credentials {
    /// A token of `now`, in seconds since 1970.
    ///
    /// # Errors
    /// The crate cannot sign.
    pub fn sign(&self, now: i64) -> Result<String, jsonwebtoken::errors::Error> {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(self.access_key_id.clone());
        let claims = Claims {
            aud: AUDIENCE.to_owned(),
            iat: now,
            exp: now + LIFE,
            nbf: None,
        };
        let key = EncodingKey::from_secret(self.secret_access_key.as_bytes());
        jsonwebtoken::encode(&header, &claims, &key)
    }
}
