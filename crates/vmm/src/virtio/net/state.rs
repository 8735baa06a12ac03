//! What a snapshot keeps of a network interface.

use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_net::VIRTIO_NET_S_LINK_UP;

use super::device::{MAX_PAIRS, NetConfig};
use crate::snapshot::{Saved, StateError};

/// As snapshots' errors call it.
const PART: &str = "network interface";
/// Bytes of `struct virtio_net_config` up to the MTU.
const CONFIG_LEN: usize = 12;

/// Configuration space (5.1.4).
pub(super) type ConfigSpace = [u8; CONFIG_LEN];

/// The offloads are not in it: they follow from the features.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// What its driver has read, and will not read again.
    pub(super) config: ConfigSpace,
    pub(super) features: u64,
    pub(super) pairs_in_use: u16,
}

impl State {
    pub(super) fn save(&self) -> Result<Saved, StateError> {
        Saved::of(PART, self)
    }

    /// # Errors
    /// It is no interface's state, or of one that used pairs that it did not have.
    pub(super) fn read(saved: &Saved) -> Result<Self, StateError> {
        let state: Self = saved.read(PART)?;
        let (pairs, in_use) = (state.pairs(), state.pairs_in_use);
        if usize::from(pairs) > MAX_PAIRS || !(1..=pairs).contains(&in_use) {
            let fault = format!("a network interface used {in_use} of {pairs} queue pairs");
            return Err(StateError::Unfit(fault));
        }
        Ok(state)
    }

    pub(super) fn pairs(&self) -> u16 {
        pairs(&self.config)
    }
}

/// Of an interface whose link is up.
pub(super) fn config_space(config: &NetConfig, pairs: u16) -> ConfigSpace {
    let mut space = [0; CONFIG_LEN];
    space[0..6].copy_from_slice(&config.mac);
    space[6..8].copy_from_slice(&(VIRTIO_NET_S_LINK_UP as u16).to_le_bytes());
    space[8..10].copy_from_slice(&pairs.to_le_bytes());
    space[10..12].copy_from_slice(&config.mtu.to_le_bytes());
    space
}

/// The same with the link down.
pub(super) fn without_link(mut space: ConfigSpace) -> ConfigSpace {
    space[6..8].fill(0);
    space
}

/// Queue pairs that the interface has.
pub(super) fn pairs(space: &ConfigSpace) -> u16 {
    u16::from_le_bytes([space[8], space[9]])
}
