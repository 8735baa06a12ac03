//! The join token: what a host needs in order to trust the control plane, and to be trusted by it.
//!
//! `hearth-join-1.<secret>.<SHA-256 of the CA certificate's DER>.<host:port>[,<host:port>...]`, digits in lower-case hex. The control
//! plane's TLS chain ends with that CA's certificate and its leaf is named [`SERVER_NAME`], so that a host which knows
//! nothing but the token can tell the right server from any other before it says the secret.

use std::fmt;
use std::str::FromStr;

/// The name that the control plane's certificate has for agents, whatever its address.
pub const SERVER_NAME: &str = "hearthd";

/// Metadata of the status with which a `hearthd` that is not the leader answers agents: the leader's `host:port`.
pub const LEADER: &str = "hearth-leader";

const PREFIX: &str = "hearth-join-1";
/// Bytes of both the secret and the fingerprint.
const BYTES: usize = 32;

#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// 64 hex digits. Said once, in Enroll.
    pub secret: String,
    /// SHA-256 of the CA certificate's DER, 64 hex digits.
    pub ca_fingerprint: String,
    /// Where agents dial: one `host:port` or several, separated by commas.
    pub endpoint: String,
}

impl JoinToken {
    /// Each `host:port` that agents dial.
    pub fn endpoints(&self) -> impl Iterator<Item = &str> {
        self.endpoint.split(',')
    }
}

/// The text is no join token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no join token: `hearthd join-token` on the control plane's machine prints one")]
pub struct MalformedToken;

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            secret,
            ca_fingerprint,
            endpoint,
        } = self;
        write!(f, "{PREFIX}.{secret}.{ca_fingerprint}.{endpoint}")
    }
}

/// Without the secret: tokens end up in logs.
impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("ca_fingerprint", &self.ca_fingerprint)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl FromStr for JoinToken {
    type Err = MalformedToken;

    fn from_str(text: &str) -> Result<Self, MalformedToken> {
        let mut parts = text.trim().splitn(4, '.');
        let mut next = || parts.next().filter(|part| !part.is_empty()).ok_or(MalformedToken);
        if next()? != PREFIX {
            return Err(MalformedToken);
        }
        let (secret, ca_fingerprint, endpoint) = (next()?, next()?, next()?);
        let hex = |s: &str| s.len() == 2 * BYTES && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let has_port = |endpoint: &str| {
            let port = endpoint.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
            matches!(port, Some(Ok(_)))
        };
        if !hex(secret) || !hex(ca_fingerprint) || !endpoint.split(',').all(has_port) {
            return Err(MalformedToken);
        }
        Ok(Self {
            secret: secret.into(),
            ca_fingerprint: ca_fingerprint.into(),
            endpoint: endpoint.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_back_and_its_secret_is_not_shown() {
        let token = JoinToken {
            secret: "5".repeat(64),
            ca_fingerprint: "a".repeat(64),
            endpoint: "10.1.2.3:7601".into(),
        };
        assert_eq!(format!("{token}\n").parse(), Ok(token.clone()));
        assert!(!format!("{token:?}").contains(&token.secret));
    }

    #[test]
    fn anything_else_is_refused() {
        let f = "a".repeat(64);
        for text in [
            "",
            "hearth-join-1",
            &format!("hearth-join-1.{f}.{f}."),
            &format!("hearth-join-1.{f}.{f}.host"),
            &format!("hearth-join-2.{f}.{f}.host:1"),
            &format!("hearth-join-1.{f}.abc.host:1"),
            &format!("hearth-join-1.{f}.{f}.host:1,"),
        ] {
            assert_eq!(text.parse::<JoinToken>(), Err(MalformedToken), "{text}");
        }
    }
}
