//! Join tokens: how they are put together, and `hearthd join-token`, which asks the running `hearthd`.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use hearth_api::Client;
use hearth_api::endpoint::ConnectError;
use hearth_api::join::JoinToken;
use hearth_api::v1::{self, CreateJoinTokenRequest, ListJoinTokensRequest, RevokeJoinTokensRequest};
use jiff::SignedDuration;
use tonic::{Response, Status};

use crate::store;

/// How long a `hearthd` that has just been started may take to listen, and how often it is tried.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);

/// What makes a secret into a token that an agent can use.
#[derive(Debug)]
pub struct Issuer {
    ca_fingerprint: String,
    endpoint: String,
}

impl Issuer {
    /// For the authority with this fingerprint, and agents that dial `endpoint`.
    pub fn new(ca_fingerprint: String, endpoint: String) -> Self {
        Self {
            ca_fingerprint,
            endpoint,
        }
    }

    /// `endpoint` is what agents shall dial; empty: this process, and the others that serve the cloud.
    pub fn token(&self, secret: String, endpoint: &str, members: &[String]) -> JoinToken {
        let own = std::iter::once(&self.endpoint);
        let all: Vec<&str> = own
            .chain(members.iter().filter(|member| **member != self.endpoint))
            .map(String::as_str)
            .collect();
        JoinToken {
            secret,
            ca_fingerprint: self.ca_fingerprint.clone(),
            endpoint: match endpoint {
                "" => all.join(","),
                endpoint => endpoint.to_owned(),
            },
        }
    }
}

/// What can be dialled of an address that is listened at.
pub fn dialled(listen: SocketAddr) -> String {
    // Nobody can dial "any address".
    let host = match listen.ip() {
        ip if ip.is_unspecified() => [127, 0, 0, 1].into(),
        ip => ip,
    };
    SocketAddr::new(host, listen.port()).to_string()
}

/// Whom a token admits, and until when.
#[derive(Debug, Clone)]
pub struct Terms {
    pub expires_in: SignedDuration,
    /// Hosts that may join with it.
    pub uses: u32,
    /// The one host that joins again with it, under the id that it had.
    pub host_id: Option<String>,
}

/// Makes a join token. `endpoint` is what agents shall dial; without it, where `hearthd` listens.
///
/// # Errors
/// No `hearthd` runs with this data directory, or it refuses the terms.
pub async fn make_token(
    data_dir: &Path,
    endpoint: Option<String>,
    terms: Terms,
) -> anyhow::Result<JoinToken> {
    let request = CreateJoinTokenRequest {
        expires_in_seconds: terms.expires_in.as_secs(),
        uses: i32::try_from(terms.uses)?,
        host_id: terms.host_id.unwrap_or_default(),
        endpoint: endpoint.unwrap_or_default(),
    };
    let mut client = connect(data_dir).await?;
    let answer = answered(client.hosts.create_join_token(request).await)?;
    answer.token.parse().context("hearthd answered no join token")
}

/// A token that admits hosts, as people read it: `join-1f2e3d4c  1 of 1 uses left  expires 2026-11-26T10:00:00Z`.
#[derive(Debug)]
pub struct Listed(v1::JoinToken);

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = &self.0;
        write!(
            f,
            "{}  {} of {} uses left  ",
            token.join_token_id, token.uses_left, token.uses
        )?;
        let expires = token.expiration_time.unwrap_or_default();
        let expires = jiff::Timestamp::new(expires.seconds, 0).unwrap_or(jiff::Timestamp::MAX);
        write!(f, "expires {}", expires.strftime("%Y-%m-%dT%H:%M:%SZ"))?;
        match token.host_id.as_str() {
            "" => Ok(()),
            host_id => write!(f, "  for {host_id}"),
        }
    }
}

/// The tokens that still admit hosts, the oldest first.
///
/// # Errors
/// No `hearthd` runs with this data directory.
pub async fn list_tokens(data_dir: &Path) -> anyhow::Result<Vec<Listed>> {
    let mut client = connect(data_dir).await?;
    let answer = answered(client.hosts.list_join_tokens(ListJoinTokensRequest {}).await)?;
    Ok(answer.join_tokens.into_iter().map(Listed).collect())
}

/// Makes a token useless, named by its id or by itself. Hosts that joined with it stay.
///
/// # Errors
/// There is no such token, or no `hearthd` runs with this data directory.
pub async fn revoke_token(data_dir: &Path, token: &str) -> anyhow::Result<()> {
    ensure!(!token.is_empty(), "--revoke needs a token or its id");
    let request = RevokeJoinTokensRequest {
        token: token.to_owned(),
        all: false,
    };
    let mut client = connect(data_dir).await?;
    answered(client.hosts.revoke_join_tokens(request).await)?;
    Ok(())
}

/// Makes all join tokens useless. Hosts that joined stay. Answers how many still admitted hosts.
///
/// # Errors
/// No `hearthd` runs with this data directory.
pub async fn revoke_all_tokens(data_dir: &Path) -> anyhow::Result<u32> {
    let request = RevokeJoinTokensRequest {
        token: String::new(),
        all: true,
    };
    let mut client = connect(data_dir).await?;
    let answer = answered(client.hosts.revoke_join_tokens(request).await)?;
    Ok(answer.revoked.unsigned_abs())
}

/// To the `hearthd` that runs with this data directory. One that has just been started is waited for.
async fn connect(data_dir: &Path) -> anyhow::Result<Client> {
    // No hearthd will start there.
    store::refuse_half_restored(data_dir)?;
    let until = Instant::now() + PATIENCE;
    loop {
        match try_connect(data_dir).await {
            Ok(client) => return Ok(client),
            Err(error) if !is_absence(&error) || Instant::now() >= until => return Err(error),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Whether nothing has listened yet, or nothing does at the moment.
fn is_absence(error: &anyhow::Error) -> bool {
    let never = error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::NotFound);
    never || matches!(error.downcast_ref(), Some(ConnectError::NotRunning { .. }))
}

async fn try_connect(data_dir: &Path) -> anyhow::Result<Client> {
    let path = data_dir.join("endpoints.json");
    let text = std::fs::read_to_string(&path).with_context(|| {
        format!(
            "reading {}: start hearthd first, or name its --data-dir",
            path.display()
        )
    })?;
    let endpoints: serde_json::Value =
        serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
    let socket = endpoints["socket"]
        .as_str()
        .with_context(|| format!("{} names no socket", path.display()))?;
    Ok(Client::connect(&format!("unix:{socket}")).await?)
}

fn answered<T>(answer: Result<Response<T>, Status>) -> anyhow::Result<T> {
    match answer {
        Ok(answer) => Ok(answer.into_inner()),
        Err(status) => anyhow::bail!("{}", status.message()),
    }
}
