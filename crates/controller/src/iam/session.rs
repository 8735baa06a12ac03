//! Credentials that end. All that the cloud needs to know of them is sealed in their token, so that any `hearthd` takes
//! them and none keeps them.

use std::fmt;

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
    /// Of a role's session.
    pub name: Option<String>,
}

/// `ACCESS KEY/PRINCIPAL`, or `ACCESS KEY/ROLE/NAME`.
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
    /// The session that is displayed so; `None`: none is.
    pub fn read(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '/').map(str::to_owned);
        Some(Self {
            access_key_id: parts.next()?,
            principal_id: parts.next()?,
            name: parts.next(),
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
    expires_at: i64,
) -> Result<Credentials, Broken> {
    let token = Token {
        session: Session {
            access_key_id: format!("ASIA{}", base32::<16>()),
            principal_id: principal_id.to_owned(),
            name: name.map(str::to_owned),
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
