//! The owner's access key, where AWS's tools read theirs, and the secrets of all keys for who checks signatures.

use std::path::Path;
use std::sync::Arc;

use hearth_ec2::signature::{Keys, Unusable};

use crate::app::App;
use crate::call::Caller;
use crate::iam::session::{self, Refused};
use crate::pki;
use crate::state::{AccessKey, State};
use crate::store::now;

/// In the data directory: for root, and for whoever is given a copy.
const FILE: &str = "credentials";

/// Writes the owner's access key as a profile of `~/.aws/credentials`.
///
/// # Errors
/// The file cannot be written.
pub fn write(state: &State, owner: &str, region: &str, dir: &Path) -> std::io::Result<()> {
    let Some(key) = state.first_by(&AccessKey::BY_ACCOUNT, owner) else {
        return Ok(());
    };
    let text = format!(
        "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\nregion = {region}\n",
        key.id, key.secret.0
    );
    pki::write_atomically(&dir.join(FILE), text.as_bytes(), 0o600)
}

/// The keys of this cloud.
#[derive(Debug, Clone)]
pub struct AccessKeys(pub Arc<App>);

impl Keys for AccessKeys {
    type Signer = Caller;

    fn find(&self, access_key_id: &str, session_token: Option<&str>) -> Result<(String, Caller), Unusable> {
        let state = self.0.store.state();
        if let Some(token) = session_token {
            let found = session::of_token(&state, access_key_id, token, now());
            let (session, secret) = found.map_err(|refused| match refused {
                Refused::Unknown => Unusable::Unknown,
                Refused::Expired => Unusable::Expired,
            })?;
            return Ok((secret.0, Caller::Session(session)));
        }
        let key = state
            .get::<AccessKey>(access_key_id)
            .filter(|key| !key.is_inactive);
        let key = key.ok_or(Unusable::Unknown)?;
        Ok((key.secret.0.clone(), Caller::AccessKey(key.id.clone())))
    }
}
