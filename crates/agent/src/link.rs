//! The way to the control plane, for those who need it now and then: there, or being waited for.

use hearth_api::agent::control_plane_client::ControlPlaneClient;
use hearth_api::join::LEADER;
use tokio::sync::watch;
use tonic::Status;
use tonic::transport::Channel;

/// Far above what a full host's intents take (tens of KiB each at most, by user data).
const MAX_MESSAGE: usize = 64 << 20;

/// Cheap to clone.
#[derive(Clone)]
pub struct Link {
    channel: watch::Receiver<Option<Channel>>,
}

impl Link {
    pub fn new() -> (watch::Sender<Option<Channel>>, Link) {
        let (sender, channel) = watch::channel(None);
        (sender, Link { channel })
    }

    /// A client on the living connection; waits until there is one.
    pub async fn client(&self) -> ControlPlaneClient<Channel> {
        let mut channel = self.channel.clone();
        loop {
            if let Some(channel) = channel.borrow_and_update().clone() {
                return client(channel);
            }
            if channel.changed().await.is_err() {
                // The agent is on its way out.
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Where the leader is, if the control plane said so when it refused.
pub fn leader(status: &Status) -> Option<&str> {
    status.metadata().get(LEADER)?.to_str().ok()
}

/// A client on a connection, for messages as large as a full host's intents.
pub fn client(channel: Channel) -> ControlPlaneClient<Channel> {
    ControlPlaneClient::new(channel).max_decoding_message_size(MAX_MESSAGE)
}
