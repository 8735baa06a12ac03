//! `hearthd join-token`: works beside a running `hearthd`, on the same store.

use std::path::Path;

use anyhow::Context as _;
use hearth_api::join::JoinToken;

use crate::pki::Authority;
use crate::store::{Store, tokens};

/// Makes a join token. Any number of hosts may join with it until it is revoked. `endpoint` is what agents shall dial;
/// without it, where the `hearthd` of this data directory listens.
///
/// # Errors
/// There is no `hearthd` yet in this data directory, or its store cannot be written.
pub async fn make_token(data_dir: &Path, endpoint: Option<String>) -> anyhow::Result<JoinToken> {
    let endpoint = match endpoint {
        Some(endpoint) => endpoint,
        None => listening(data_dir)?,
    };
    let ca_fingerprint = Authority::open(&data_dir.join("pki"))?.fingerprint();
    let secret = hex::encode(rand::random::<[u8; 32]>());
    let store = Store::open(&data_dir.join("hearth.db")).await?;
    let mut tx = store.write().await?;
    tokens::add_join_secret(tx.connection(), &secret).await?;
    tx.commit().await?;
    store.close().await;
    Ok(JoinToken {
        secret,
        ca_fingerprint,
        endpoint,
    })
}

/// Makes all join tokens useless. Hosts that joined stay. Answers how many there were.
///
/// # Errors
/// The store cannot be written.
pub async fn revoke_tokens(data_dir: &Path) -> anyhow::Result<u64> {
    let store = Store::open(&data_dir.join("hearth.db")).await?;
    let mut tx = store.write().await?;
    let revoked = tokens::revoke_join_secrets(tx.connection()).await?;
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
