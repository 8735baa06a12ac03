//! `hearth-agent`: makes the host match its intents.
//!
//! The control plane says what should be ([`supervisor`]); the agent remembers it ([`store`]), looks at the
//! world ([`monitor`]), decides ([`decide`]: pure) and acts ([`instance`], [`networks`], [`images`],
//! [`volume`]), and tells what is ([`board`], [`session`]). Monitors are no children in need of a parent: an
//! agent may be killed at any moment, and the next one adopts them.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod agent;
pub mod board;
pub mod capacity;
pub mod checks;
pub mod cleanup;
pub mod consoles;
pub mod counters;
pub mod decide;
pub mod descriptors;
pub mod disk_keys;
pub mod endpoints;
mod fault;
pub mod firmware;
pub mod host;
pub mod identity;
pub mod images;
pub mod instance;
mod instance_store;
pub mod jail;
mod keys;
pub mod link;
pub mod lock;
pub mod monitor;
pub mod networks;
pub mod paths;
pub mod points;
pub mod record;
pub mod roles;
mod session;
mod snapshots;
pub mod storage;
pub mod store;
pub mod supervisor;
mod unix;
pub mod volume;
mod volumes;

pub use hearth_log::chain;
