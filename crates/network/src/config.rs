//! What the host's operator decides about its networks.

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::Ipv4Net;

/// How one agent keeps its networks. Several agents (clouds) may share a host: each has its own `state_dir`.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// Remembers which VPC namespaces are this agent's, so that another cloud's are never taken for left-overs.
    /// Made when absent; may lie on a tmpfs (`/run`).
    pub state_dir: PathBuf,
    /// Where namespaces are named; `/run/netns` lets `ip netns` see them.
    pub netns_dir: PathBuf,
    /// The namespace that has the way out; `None` is the one this process was started in.
    pub root_netns: Option<PathBuf>,
    /// Signs IMDSv2 tokens. Kept by the agent on disk, so that tokens outlive its restart.
    pub imds_key: [u8; 32],
    /// MTU of every link and of DHCP option 26, in bytes.
    pub mtu: u16,
    /// Networks of the host, or behind it, that guests may reach. Without them guests reach the internet, and neither
    /// private networks (RFC 1918, RFC 6598) nor any that the host has a route to besides its default route.
    pub guest_networks: Vec<Ipv4Net>,
    /// Where DNS questions go; empty means the `nameserver` lines of `/etc/resolv.conf`, as they are at the time.
    pub resolvers: Vec<SocketAddr>,
}

impl NetworkConfig {
    /// The usual values: `/run/netns`, the process's own namespace, MTU 1500, the host's resolvers.
    pub fn new(state_dir: impl Into<PathBuf>, imds_key: [u8; 32]) -> Self {
        Self {
            state_dir: state_dir.into(),
            netns_dir: PathBuf::from("/run/netns"),
            root_netns: None,
            imds_key,
            mtu: 1500,
            guest_networks: Vec::new(),
            resolvers: Vec::new(),
        }
    }
}
