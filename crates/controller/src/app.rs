//! What every part of a running `hearthd` shares.

use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::gateway::Sessions;
use crate::join::Issuer;
use crate::store::Store;
use crate::vault::Vault;
use crate::views::Cloud;

#[derive(Debug)]
pub struct App {
    pub config: Config,
    pub cloud: Cloud,
    pub store: Store,
    pub vault: Vault,
    pub sessions: Arc<Sessions>,
    pub join_tokens: Issuer,
    /// Cancelled when the process ends gracefully: streams that would never end do.
    pub ending: CancellationToken,
}

impl App {
    /// The account that calls are made for, as long as there is one only.
    pub fn account(&self) -> &str {
        &self.cloud.owner_id
    }

    pub fn images_dir(&self) -> PathBuf {
        self.config.images_dir()
    }

    /// The disk of an image.
    pub fn image_path(&self, image_id: &str) -> PathBuf {
        self.images_dir().join(format!("{image_id}.raw"))
    }
}
