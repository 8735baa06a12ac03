//! Whom a change concerns: what agents have to hear of. Every noun says it of itself ([`super::Noun::concerns`]), before
//! and after each change, so that no call can forget it.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// What may have changed for some host. A hint: whoever hears it reads the state.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Concern {
    /// Whether the host is one.
    Host { host_id: String },
    /// An instance or what it holds: of interest to its host.
    Instance { host_id: String, instance_id: String },
    /// A volume that no instance has: of interest to its host.
    Volume { host_id: String, volume_id: String },
    /// A snapshot that is not stored yet: of interest to the host of its volume.
    Snapshot { host_id: String, snapshot_id: String },
    /// Rules of a security group: of interest to hosts that filter by them.
    Rules { group_id: String },
    /// The routes or the resolver of a VPC: of interest to hosts that have interfaces there.
    Vpc { vpc_id: String },
    /// Whether the address is a member of the group: of interest to hosts whose rules name the group.
    Member { group_id: String, address: Ipv4Addr },
}

/// What can be followed: where concerns go.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// A host, its instances and its volumes.
    Host(String),
    /// The routes and the resolver of a VPC.
    Vpc(String),
    /// The rules of a security group.
    Rules(String),
    /// The members of a security group.
    Members(String),
}

impl Concern {
    pub fn topic(&self) -> Topic {
        match self {
            Self::Host { host_id }
            | Self::Instance { host_id, .. }
            | Self::Volume { host_id, .. }
            | Self::Snapshot { host_id, .. } => Topic::Host(host_id.clone()),
            Self::Vpc { vpc_id } => Topic::Vpc(vpc_id.clone()),
            Self::Rules { group_id } => Topic::Rules(group_id.clone()),
            Self::Member { group_id, .. } => Topic::Members(group_id.clone()),
        }
    }
}

/// What of two lists of concerns, of an object before and after a change, is told. A membership that was there and is
/// there still is no news.
pub(super) fn news(before: Vec<Concern>, after: Vec<Concern>, told: &mut BTreeSet<Concern>) {
    let is_news = |concern: &Concern, other: &[Concern]| {
        !matches!(concern, Concern::Member { .. }) || !other.contains(concern)
    };
    told.extend(before.iter().filter(|concern| is_news(concern, &after)).cloned());
    let after = after.into_iter().filter(|concern| is_news(concern, &before));
    told.extend(after);
}
