//! Running `nft` through the `nftables` crate, inside a namespace and with a deadline.

use std::time::Duration;

use nftables::helper::{NftablesError, apply_ruleset_raw};
use serde_json::Value;

use super::table::{Batch, Item, Table};
use crate::NetworkError;
use crate::netns::Netns;

/// What the crate runs as `nft`. Its helper leaves `nft`'s messages on the agent's own standard error, and has no
/// deadline: the kernel ends an `nft` that has used 60 seconds of CPU. A service's PATH often lacks sbin.
const SHELL: &str = "/bin/sh";
const NFT: [&str; 4] = [
    "-c",
    "PATH=/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin LC_ALL=C; export PATH LC_ALL; ulimit -t 60; \
     command -v nft >/dev/null || { cat >/dev/null; echo nft is not installed; exit 127; }; exec nft \"$@\" 2>&1",
    "nft",
    "--numeric",
];
/// How long a caller waits for `nft`, which other processes on the host may keep from the kernel's rules.
const PATIENCE: Duration = Duration::from_secs(90);

/// Carries the batch out in `netns`. `what` names the rules in errors.
pub(super) async fn apply(netns: &Netns, what: &str, batch: &Batch) -> Result<(), NetworkError> {
    run(netns, "loading", what, batch).await.map(drop)
}

/// What to list of a namespace.
pub(super) enum Scope<'t> {
    /// Everything: for namespaces that are Hearth's own.
    Ruleset,
    /// All base chains.
    Chains,
    Table(&'t Table),
}

/// The objects that are loaded in `netns`; none of a table that is not there.
pub(super) async fn list(netns: &Netns, what: &str, scope: Scope<'_>) -> Result<Vec<Value>, NetworkError> {
    let failed = |message| NetworkError::Rules {
        action: "listing",
        what: what.to_owned(),
        message,
    };
    let listing = match scope {
        // The crate has neither of these two, and its other helper, which has, takes no shell as its program.
        Scope::Ruleset => Item::Raw(serde_json::json!({ "list": { "ruleset": null } })),
        Scope::Chains => Item::Raw(serde_json::json!({ "list": { "chains": null } })),
        Scope::Table(table) => table.listing(),
    };
    let batch = Batch { items: vec![listing] };
    let printed = match run(netns, "listing", what, &batch).await {
        Err(NetworkError::Rules { message, .. }) if message.contains("No such file or directory") => {
            return Ok(Vec::new());
        }
        other => other?,
    };
    // Read as plain values, since the crate's types refuse a whole document for one verdict map, or for a counter of
    // more than 4 GiB.
    let mut document: Value = serde_json::from_str(&printed).map_err(|e| failed(e.to_string()))?;
    match document.get_mut("nftables").map(Value::take) {
        Some(Value::Array(objects)) => Ok(objects),
        _ => Err(failed("nft printed no list of objects".to_owned())),
    }
}

async fn run(netns: &Netns, action: &'static str, what: &str, batch: &Batch) -> Result<String, NetworkError> {
    let failed = |message| NetworkError::Rules {
        action,
        what: what.to_owned(),
        message,
    };
    let payload = serde_json::to_string(batch).map_err(|e| failed(e.to_string()))?;
    let ran = netns.run(move || Ok(apply_ruleset_raw(&payload, Some(SHELL), NFT)));
    let ran = tokio::time::timeout(PATIENCE, ran);
    let ran = ran
        .await
        .map_err(|_| failed(format!("nft has not ended after {PATIENCE:?}")))?;
    ran?.map_err(|error| {
        failed(match error {
            NftablesError::NftFailed { stdout, .. } if stdout.trim().is_empty() => {
                "nft failed without a message; it may have used its 60 seconds of CPU".to_owned()
            }
            NftablesError::NftFailed { stdout, .. } => stdout.trim().to_owned(),
            other => other.to_string(),
        })
    })
}
