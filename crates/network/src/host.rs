//! What all VPCs of a host share.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Mutex;

use crate::dns::Upstream;
use crate::forwarding::Forwarding;
use crate::links::Links;
use crate::names::{UPLINK_PREFIX, is_id};
use crate::netns::{self, Netns, file_error};
use crate::reach::Reach;
use crate::rules::{ConnectionShares, obstacles};
use crate::share::Shares;
use crate::{MetadataSource, NetworkConfig, NetworkError};

pub(crate) struct Host {
    pub(crate) config: NetworkConfig,
    pub(crate) metadata: Arc<dyn MetadataSource>,
    /// The namespace with the way out.
    pub(crate) root: Netns,
    pub(crate) links: Links,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) shares: Shares,
    pub(crate) forwarding: Mutex<Forwarding>,
    pub(crate) connections: ConnectionShares,
}

/// How many connections a namespace may track.
fn tracked_connections() -> Result<u32, NetworkError> {
    let path = Path::new("/proc/sys/net/netfilter/nf_conntrack_max");
    // The file comes with the kernel module, which comes with the first rule that needs it. Then this is the kernel's
    // usual value.
    let text = std::fs::read_to_string(path).unwrap_or_default();
    Ok(text.trim().parse().unwrap_or(65_536))
}

impl Host {
    pub(crate) async fn new(
        config: NetworkConfig,
        metadata: Arc<dyn MetadataSource>,
    ) -> Result<Self, NetworkError> {
        std::fs::create_dir_all(&config.state_dir)
            .map_err(|e| file_error("creating", &config.state_dir, e))?;
        netns::prepare_directory(&config.netns_dir)?;
        let root = match &config.root_netns {
            None => Netns::current()?,
            Some(path) => Netns::open(path)?.ok_or_else(|| {
                file_error("opening the namespace", path, std::io::ErrorKind::NotFound.into())
            })?,
        };
        let record = config.state_dir.join("forwarding");
        let forwarding = Forwarding::switch_on(&root, record).await?;
        for obstacle in obstacles(&root).await? {
            tracing::warn!("{obstacle}");
        }
        let connections = ConnectionShares::of(root.run(tracked_connections).await?);
        let links = Links::of(&root).await?;
        let upstream = Upstream::new(&root, config.resolvers.clone())?;
        Ok(Self {
            config,
            metadata,
            root,
            links,
            upstream,
            shares: Shares::default(),
            forwarding: Mutex::new(forwarding),
            connections,
        })
    }

    /// The networks that guests reach, by the host's routes at this moment.
    pub(crate) async fn reach(&self) -> Result<Reach, NetworkError> {
        let routed = self.links.networks(UPLINK_PREFIX).await?;
        Ok(Reach::new(routed.into_iter(), &self.config.guest_networks))
    }

    pub(crate) fn netns_path(&self, vpc_id: &str) -> PathBuf {
        self.config.netns_dir.join(vpc_id)
    }

    /// An empty file that says "this VPC's namespace is ours"; made before the namespace, removed after it.
    fn mark_path(&self, vpc_id: &str) -> PathBuf {
        self.config.state_dir.join(vpc_id)
    }

    pub(crate) fn is_marked(&self, vpc_id: &str) -> bool {
        self.mark_path(vpc_id).exists()
    }

    pub(crate) fn mark(&self, vpc_id: &str) -> Result<(), NetworkError> {
        let path = self.mark_path(vpc_id);
        if self.is_marked(vpc_id) {
            return Ok(());
        }
        std::fs::write(&path, []).map_err(|e| file_error("writing", &path, e))
    }

    pub(crate) fn unmark(&self, vpc_id: &str) -> Result<(), NetworkError> {
        let path = self.mark_path(vpc_id);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(file_error("removing", &path, e)),
            _ => Ok(()),
        }
    }

    pub(crate) fn marked(&self) -> Result<Vec<String>, NetworkError> {
        let directory = &self.config.state_dir;
        let failed = |e| file_error("listing", directory, e);
        let mut vpcs = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            vpcs.extend(name.into_string().ok().filter(|name| is_id("vpc", name)));
        }
        vpcs.sort();
        Ok(vpcs)
    }
}
