//! Running `nft` through the `nftables` crate, inside a namespace and with a deadline.

use nftables::helper::{NftablesError, apply_ruleset_raw};
use serde_json::Value;

use super::table::{Batch, Item, Table};
use crate::NetworkError;
use crate::netns::Netns;

/// What the crate runs as `nft`. Its helper has no deadline, leaves `nft`'s messages on the agent's own standard
/// error, and hides them when `nft` ends before it has read everything. A service's PATH often lacks sbin.
const SHELL: &str = "/bin/sh";
const NFT: [&str; 4] = [
    "-c",
    "PATH=/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin LC_ALL=C; export PATH LC_ALL; \
     timeout -s KILL 60 nft \"$@\" 2>&1; code=$?; cat >/dev/null; exit $code",
    "nft",
    "--numeric",
];

/// Carries the batch out in `netns`. `what` names the rules in errors.
pub(super) async fn apply(netns: &Netns, what: &str, batch: &Batch) -> Result<(), NetworkError> {
    run(netns, "loading", what, batch).await.map(drop)
}

/// What to list of a namespace.
pub(super) enum Scope<'t> {
    /// Everything: for namespaces that are Hearth's own.
    Ruleset,
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
        // The crate has no `list ruleset`, and its other helper, which has, takes no shell as its program.
        Scope::Ruleset => Item::Raw(serde_json::json!({ "list": { "ruleset": null } })),
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
    ran.await?.map_err(|error| {
        failed(match error {
            NftablesError::NftFailed { stdout, .. } if stdout.trim().is_empty() => {
                "nft failed without a message; it may have been stopped after 60 seconds".to_owned()
            }
            NftablesError::NftFailed { stdout, .. } => stdout.trim().to_owned(),
            other => other.to_string(),
        })
    })
}
