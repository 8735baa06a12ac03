//! End to end: a whole cloud on this machine, with real KVM, real TAPs and real nftables.
//!
//! A [`Cloud`] is a `hearthd` and a `hearth-agent` of its own in a temporary directory, with a host network
//! namespace of its own, so that tests neither see nor disturb a cloud that `scripts/up` has left running.
//! Its janitor ends and removes everything, however the test ends.

pub mod aws;
pub mod client;
mod cloud;
mod files;
mod guest;
mod host;
mod janitor;
pub mod metal;
mod second;
pub mod simulated;
mod skip;

pub use cloud::{BOOT, Cloud, Daemon, binary, tcp_from, tcp_from_group, upload_image};
pub use files::holds;
pub use guest::Guest;
pub use host::HostNamespace;
pub use second::{Second, hosts};
pub use skip::{can_run, skipped};
