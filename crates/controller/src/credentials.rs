//! The owner's access key, where AWS's tools read theirs, and the secrets of all keys for who checks signatures.

use std::path::Path;
use std::sync::Arc;

use hearth_ec2::face::Regions;
use hearth_ec2::signature::{Keys, Unusable};

use crate::app::App;
use crate::call::Caller;
use crate::iam::session::{self, Refused};
use crate::pki;
use crate::seal::{Broken, SealingKey};
use crate::state::{AccessKey, State};
use crate::store::now;

/// In the data directory: for root, and for whoever is given a copy.
const FILE: &str = "credentials";

/// Why the owner's access key is not where AWS's tools read theirs.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("opening its secret")]
    Seal(#[from] Broken),
    #[error("writing {FILE} in the data directory")]
    File(#[from] std::io::Error),
}

/// Writes the owner's access key as a profile of `~/.aws/credentials`. `root` is the key that its secret is sealed under.
///
/// # Errors
/// The secret cannot be opened, or the file cannot be written.
pub fn write(
    state: &State,
    root: &SealingKey,
    owner: &str,
    region: &str,
    dir: &Path,
) -> Result<(), WriteError> {
    let Some(key) = state.first_by(&AccessKey::BY_ACCOUNT, owner) else {
        return Ok(());
    };
    let text = format!(
        "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\nregion = {region}\n",
        key.id,
        key.open(root)?.0
    );
    Ok(pki::write_atomically(&dir.join(FILE), text.as_bytes(), 0o600)?)
}

/// The regions of this cloud.
#[derive(Debug)]
pub struct KnownRegions(pub Arc<App>);

impl Regions for KnownRegions {
    fn home(&self) -> &str {
        &self.0.config.region
    }

    fn has(&self, name: &str) -> bool {
        self.0.store.state().region(name).is_some()
    }
}

/// The keys of this cloud.
#[derive(Debug, Clone)]
pub struct AccessKeys(pub Arc<App>);

impl Keys for AccessKeys {
    type Signer = Caller;

    fn find(&self, access_key_id: &str, session_token: Option<&str>) -> Result<(String, Caller), Unusable> {
        if let Some(token) = session_token {
            let found = session::of_token(&self.0.vault, access_key_id, token, now());
            let (session, secret) = found.map_err(|refused| match refused {
                Refused::Unknown => Unusable::Unknown,
                Refused::Expired => Unusable::Expired,
            })?;
            return Ok((secret.0, Caller::Session(session)));
        }
        let state = self.0.store.state();
        let key = state
            .get::<AccessKey>(access_key_id)
            .filter(|key| !key.is_inactive);
        let key = key.ok_or(Unusable::Unknown)?;
        let secret = key.open(&self.0.vault.root).map_err(|error| {
            tracing::error!(%error, access_key_id, "opening the secret of an access key");
            Unusable::Unknown
        })?;
        Ok((secret.0, Caller::AccessKey(key.id.clone())))
    }
}
