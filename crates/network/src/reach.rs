//! Which networks beyond the host guests reach.
//!
//! A guest's packets wear the host's address there, so they would be taken for the host's. By default guests reach the
//! internet and none of the host's own networks.

use ipnet::Ipv4Net;

/// RFC 1918, and RFC 6598 (shared address space): the networks behind the way out are the operator's, too.
const PRIVATE: [&str; 4] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"];
/// A shorter prefix is a way out, not a network: some VPN clients split the default route into two.
const SHORTEST: u8 = 8;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reach {
    pub(crate) host_networks: Vec<Ipv4Net>,
    /// Takes precedence.
    pub(crate) guest_networks: Vec<Ipv4Net>,
}

impl Reach {
    /// `routed` are the destinations of the host's routes but those to guests.
    pub(crate) fn new(routed: impl Iterator<Item = Ipv4Net>, guest_networks: &[Ipv4Net]) -> Self {
        let private = PRIVATE.iter().filter_map(|net| net.parse().ok());
        let routed = routed.filter(|net| net.prefix_len() >= SHORTEST);
        Self {
            host_networks: routed.chain(private).collect(),
            guest_networks: guest_networks.to_vec(),
        }
    }
}
