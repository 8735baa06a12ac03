//! The networks of one host: a namespace per VPC, TAPs for its interfaces, security groups, NAT, DHCP, DNS and IMDS.
//!
//! The agent says what a VPC should be like here ([`spec::VpcSpec`], complete each time) and [`Network`] makes it so.
//! Everything that must outlive the agent (namespaces, links, routes, rules) is the kernel's; the servers (DHCP, DNS,
//! IMDS) are the agent's own tasks on sockets opened inside the namespace, and come back with it.

#![cfg_attr(
    any(test, feature = "testing"),
    allow(clippy::unwrap_used, clippy::expect_used)
)]

mod config;
mod conntrack;
mod dhcp;
mod dns;
mod drift;
mod error;
mod forwarding;
#[cfg(any(test, feature = "testing"))]
pub mod fuzz;
mod holders;
mod host;
mod imds;
mod links;
pub mod metadata;
pub mod names;
mod netns;
mod network;
mod plan;
mod reach;
mod rules;
mod servers;
mod share;
mod sockets;
pub mod spec;
mod tap;
mod tracking;
mod vpc;

pub use config::NetworkConfig;
pub use error::NetworkError;
pub use metadata::{
    ActiveKey, InstanceMetadata, InstanceProfile, MetadataSource, PublicKey, RoleCredentials,
};
pub use network::Network;
pub use share::{DESCRIPTORS_PER_INTERFACE, InterfaceCounters, RefusedConnections, ServiceCounters};
