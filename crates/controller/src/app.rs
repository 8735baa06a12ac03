//! What every part of a running `hearthd` shares.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use hearth_repository::Repository;
use tokio_util::sync::CancellationToken;

use crate::call::Call;
use crate::config::Config;
use crate::gateway::Sessions;
use crate::join::Issuer;
use crate::services::{Imports, Surveys};
use crate::state::{Scope, State};
use crate::store::Store;
use crate::vault::Vault;
use crate::views::Cloud;

#[derive(Debug)]
pub struct App {
    pub config: Config,
    pub cloud: Cloud,
    pub store: Store,
    /// The disks of images and snapshots.
    pub repository: Repository,
    pub imports: Imports,
    /// What lies in the repository.
    pub surveys: Surveys,
    /// Something was stored there that nothing needs: it is to be collected soon.
    pub littered: AtomicBool,
    pub vault: Arc<Vault>,
    pub sessions: Arc<Sessions>,
    pub join_tokens: Issuer,
    /// Cancelled when the process ends gracefully: streams that would never end do.
    pub ending: CancellationToken,
}

impl App {
    /// The account of the call that the running task serves; the operator's, if it serves none.
    pub fn account(&self) -> String {
        let call = Call::current();
        let account = call.as_ref().map(|call| &call.principal.account_id);
        account.unwrap_or(&self.cloud.owner_id).clone()
    }

    /// The account and the region of the call that the running task serves; the operator's account and the home region, if it
    /// serves none.
    pub fn scope(&self) -> Scope {
        let home = || Scope::new(&self.cloud.owner_id, &self.config.region);
        Call::current().map_or_else(home, |call| call.account_scope())
    }

    /// The region of the call that the running task serves.
    pub fn region(&self) -> String {
        self.scope().region().to_owned()
    }

    /// The state as the call that the running task serves sees it. A task that serves none sees what is the operator's.
    pub fn state(&self) -> State {
        let nobody = || Some(Scope::new("", ""));
        let scope = Call::current().map_or_else(nobody, |call| call.scope());
        let state = self.store.state();
        match scope {
            Some(scope) => state.seen_by(scope),
            None => State::clone(&state),
        }
    }

    /// Where disks are while they are being uploaded.
    pub fn uploads_dir(&self) -> PathBuf {
        self.config.uploads_dir()
    }
}
