//! `hearthd join-token`: works beside a running `hearthd`, on the same store.

use std::fmt;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use hearth_api::join::JoinToken;
use hearth_api::{Id, Kind};
use jiff::SignedDuration;

use crate::pki::Authority;
use crate::store::join_tokens::{self, JoinTokenRow};
use crate::store::{Store, hosts, now};

const LONGEST: SignedDuration = SignedDuration::from_hours(720);

/// Whom a token admits, and until when.
#[derive(Debug, Clone)]
pub struct Terms {
    pub expires_in: SignedDuration,
    /// Hosts that may join with it.
    pub uses: u32,
    /// The one host that joins again with it, under the id that it had.
    pub host_id: Option<String>,
}

/// Makes a join token. `endpoint` is what agents shall dial; without it, where the `hearthd` of this data directory
/// listens.
///
/// # Errors
/// The terms make no sense, there is no `hearthd` yet in this data directory, or its store cannot be written.
pub async fn make_token(
    data_dir: &Path,
    endpoint: Option<String>,
    terms: Terms,
) -> anyhow::Result<JoinToken> {
    ensure!(
        terms.expires_in > SignedDuration::ZERO && terms.expires_in <= LONGEST,
        "--expires-in must be more than nothing and at most {} hours",
        LONGEST.as_hours()
    );
    let endpoint = match endpoint {
        Some(endpoint) => endpoint,
        None => listening(data_dir)?,
    };
    let ca_fingerprint = Authority::fingerprint_in(&data_dir.join("pki"))?;
    let secret = hex::encode(rand::random::<[u8; 32]>());
    let created_at = now();
    let row = JoinTokenRow {
        id: format!("join-{:08x}", rand::random::<u32>()),
        host_id: terms.host_id,
        uses: terms.uses.into(),
        uses_left: terms.uses.into(),
        created_at,
        expires_at: created_at.saturating_add(i64::try_from(terms.expires_in.as_millis())?),
    };
    let store = Store::open_in(data_dir).await?;
    let mut tx = store.write().await?;
    if let Some(host_id) = &row.host_id {
        let host_id = Id::parse(Kind::Host, host_id)?;
        if hosts::availability_zone(tx.connection(), &host_id)
            .await?
            .is_none()
        {
            bail!("there is no host {host_id}: `hearth list-hosts` lists those that there are");
        }
    }
    join_tokens::insert(tx.connection(), &row, &secret).await?;
    tx.commit().await?;
    store.close().await;
    Ok(JoinToken {
        secret,
        ca_fingerprint,
        endpoint,
    })
}

/// A token that admits hosts, as people read it: `join-1f2e3d4c  1 of 1 uses left  expires 2026-11-26T10:00:00Z`.
#[derive(Debug)]
pub struct Listed(JoinTokenRow);

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = &self.0;
        write!(f, "{}  {} of {} uses left  ", row.id, row.uses_left, row.uses)?;
        let expires = jiff::Timestamp::from_millisecond(row.expires_at).unwrap_or(jiff::Timestamp::MAX);
        write!(f, "expires {}", expires.strftime("%Y-%m-%dT%H:%M:%SZ"))?;
        match &row.host_id {
            Some(host_id) => write!(f, "  for {host_id}"),
            None => Ok(()),
        }
    }
}

/// The tokens that still admit hosts, the oldest first.
///
/// # Errors
/// The store cannot be read.
pub async fn list_tokens(data_dir: &Path) -> anyhow::Result<Vec<Listed>> {
    let store = Store::open_in(data_dir).await?;
    let mut read = store.read().await?;
    let rows = join_tokens::usable(&mut read).await?;
    drop(read);
    store.close().await;
    Ok(rows.into_iter().map(Listed).collect())
}

/// Makes a token useless, named by its id or by itself. Hosts that joined with it stay.
///
/// # Errors
/// There is no such token, or the store cannot be written.
pub async fn revoke_token(data_dir: &Path, token: &str) -> anyhow::Result<()> {
    let store = Store::open_in(data_dir).await?;
    let mut tx = store.write().await?;
    let id = match token.parse::<JoinToken>() {
        Ok(token) => join_tokens::find(tx.connection(), &token.secret)
            .await?
            .map(|row| row.id),
        Err(_) => Some(token.to_owned()),
    };
    let revoked = match id {
        Some(id) => join_tokens::revoke(tx.connection(), &id).await?,
        None => false,
    };
    ensure!(
        revoked,
        "there is no such token: `hearthd join-token --list` lists those that there are"
    );
    tx.commit().await?;
    store.close().await;
    Ok(())
}

/// Makes all join tokens useless. Hosts that joined stay. Answers how many still admitted hosts.
///
/// # Errors
/// The store cannot be written.
pub async fn revoke_all_tokens(data_dir: &Path) -> anyhow::Result<usize> {
    let store = Store::open_in(data_dir).await?;
    let mut tx = store.write().await?;
    let revoked = join_tokens::revoke_all(tx.connection()).await?;
    tx.commit().await?;
    store.close().await;
    Ok(revoked)
}

fn listening(data_dir: &Path) -> anyhow::Result<String> {
    let path = data_dir.join("endpoints.json");
    let text = std::fs::read_to_string(&path).with_context(|| {
        format!(
            "reading {}: start hearthd first, or name its --data-dir",
            path.display()
        )
    })?;
    let endpoints: serde_json::Value = serde_json::from_str(&text)?;
    let address = endpoints["agent_listen"]
        .as_str()
        .context("endpoints.json names no agent_listen")?;
    // Nobody can dial "any address".
    Ok(address
        .replace("0.0.0.0:", "127.0.0.1:")
        .replace("[::]:", "127.0.0.1:"))
}
