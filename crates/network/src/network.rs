//! The host's networks as a whole.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::spec::VpcSpec;
use crate::{MetadataSource, NetworkConfig, NetworkError};

/// The networks of this host; cheap to clone. All calls are idempotent and may be retried after any error.
#[derive(Clone)]
pub struct Network {
    _config: Arc<NetworkConfig>,
    _metadata: Arc<dyn MetadataSource>,
}

impl Network {
    /// Prepares the host: forwarding on, directories made. Needs `CAP_NET_ADMIN` and `CAP_SYS_ADMIN`, and `nft`.
    pub async fn new(config: NetworkConfig, metadata: Arc<dyn MetadataSource>) -> Result<Self, NetworkError> {
        Ok(Self {
            _config: Arc::new(config),
            _metadata: metadata,
        })
    }

    /// Makes the VPC's namespace, uplink, rules and servers as `spec` says, adopts what an earlier process left, and
    /// removes the interfaces and rules that `spec` no longer has. Level-triggered: call it with the whole wish.
    pub async fn apply_vpc(&self, spec: &VpcSpec) -> Result<(), NetworkError> {
        Err(NetworkError::UnknownVpc(spec.vpc_id.clone()))
    }

    /// Creates the interface's TAP inside the VPC's namespace and configures it. The TAP lives as long as a
    /// descriptor of it; the interface must be in the applied specification. The descriptor is non-blocking and
    /// close-on-exec, and its frames begin with a 12-byte `virtio_net_hdr_v1`.
    pub async fn open_tap(&self, vpc_id: &str, eni_id: &str) -> Result<OwnedFd, NetworkError> {
        Err(NetworkError::UnknownEni {
            vpc_id: vpc_id.to_owned(),
            eni_id: eni_id.to_owned(),
        })
    }

    /// Removes the namespace with all that is in it, and its rules and routes in the root namespace. An absent VPC is
    /// no error.
    pub async fn remove_vpc(&self, _vpc_id: &str) -> Result<(), NetworkError> {
        Ok(())
    }

    /// The VPCs that this agent (by its `state_dir`) made and has not removed, also those of earlier processes.
    pub async fn vpcs(&self) -> Result<Vec<String>, NetworkError> {
        Ok(Vec::new())
    }
}
