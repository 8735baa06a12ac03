//! Credentials that end. All that the cloud needs to know of them is sealed in their token, so that any `hearthd` takes
//! them and none keeps them.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::seal::{Sealed, open, seal};
use crate::seal::{Broken, Secret};
use crate::state::{base32, new_secret};
use crate::vault::Vault;

/// Who acts by credentials that end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Session {
    pub access_key_id: String,
    /// A role's id, a user's id, or the account's id for its root user.
    pub principal_id: String,
    /// Of a role's session, or of a federated user.
    pub name: Option<String>,
    /// Of a session that has a name. `None`: they limit nothing.
    #[serde(default)]
    pub policies: Option<SessionPolicies>,
}

/// What limits a session: it may do what any of them allows, as far as its principal may.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SessionPolicies {
    /// A policy's JSON.
    pub inline: Option<String>,
    /// ARNs of managed policies.
    pub attached: Vec<String>,
}

/// `ACCESS KEY/PRINCIPAL`, or `ACCESS KEY/PRINCIPAL/NAME`. [`Session::whole`] has its policies, too.
impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.access_key_id, self.principal_id)?;
        match &self.name {
            Some(name) => write!(f, "/{name}"),
            None => Ok(()),
        }
    }
}

impl Session {
    /// As it is displayed, and `/BASE64` if it has policies.
    pub fn whole(&self) -> String {
        let policies = self.policies.as_ref();
        let policies = policies.and_then(|policies| serde_json::to_vec(policies).ok());
        match policies {
            Some(policies) => format!("{self}/{}", BASE64_URL_SAFE_NO_PAD.encode(policies)),
            None => self.to_string(),
        }
    }

    /// The session that is written so; `None`: none is.
    pub fn read(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, '/');
        let mut part = || parts.next().map(str::to_owned);
        let (access_key_id, principal_id, name) = (part()?, part()?, part());
        let policies = match parts.next() {
            // What cannot be read is not taken for nothing.
            Some(policies) => {
                Some(serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(policies).ok()?).ok()?)
            }
            None => None,
        };
        Some(Self {
            access_key_id,
            principal_id,
            name,
            policies,
        })
    }
}

/// What is in a token.
#[derive(Debug, Serialize, Deserialize)]
struct Token {
    session: Session,
    secret: Secret,
    /// Milliseconds since the epoch.
    expires_at: i64,
}

impl Sealed for Token {
    const KIND: &'static str = "session";
}

/// As callers are given them.
#[derive(Debug, Clone)]
pub struct Credentials {
    pub access_key_id: String,
    pub secret: Secret,
    pub token: String,
    /// Milliseconds since the epoch.
    pub expires_at: i64,
}

/// New credentials of a principal, as [`Session`] has it.
///
/// # Errors
/// The cloud cannot seal.
pub fn begin(
    vault: &Vault,
    principal_id: &str,
    name: Option<&str>,
    policies: Option<SessionPolicies>,
    expires_at: i64,
) -> Result<Credentials, Broken> {
    let token = Token {
        session: Session {
            access_key_id: format!("ASIA{}", base32::<16>()),
            principal_id: principal_id.to_owned(),
            name: name.map(str::to_owned),
            policies,
        },
        secret: new_secret(),
        expires_at,
    };
    Ok(Credentials {
        token: seal(vault, &token)?,
        access_key_id: token.session.access_key_id,
        secret: token.secret,
        expires_at,
    })
}

/// Why a token is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    Unknown,
    Expired,
}

/// The session of a token and its secret, if the token goes with the access key.
///
/// # Errors
/// It is none of this cloud, it is another key's, or it has ended.
pub fn of_token(
    vault: &Vault,
    access_key_id: &str,
    token: &str,
    now: i64,
) -> Result<(Session, Secret), Refused> {
    let token: Token = open(vault, token).map_err(|_| Refused::Unknown)?;
    if token.session.access_key_id != access_key_id {
        return Err(Refused::Unknown);
    }
    if token.expires_at <= now {
        return Err(Refused::Expired);
    }
    Ok((token.session, token.secret))
}
