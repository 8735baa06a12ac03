//! `hearthd`, the control plane: API services, scheduler, store, and the gateway that agents dial.
//!
//! A call is validated ([`services`]), meets rules that know no I/O ([`lifecycle`], [`scheduler`]), and becomes true in
//! one transaction on the state, which is a value in memory ([`state`]) with a durable form ([`store`]). After the commit
//! the hosts concerned get their new intents ([`gateway`]), and what they observe comes back the same way.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod addresses;
mod app;
pub mod backup;
mod call;
pub mod catalog;
pub mod config;
mod copies;
mod credentials;
mod disks;
mod door;
mod earlier;
mod gateway;
mod iam;
pub mod inspection;
mod intents;
mod janitor;
pub mod join;
mod keys;
mod leading;
pub mod lifecycle;
mod pki;
pub mod privileges;
mod reconcile;
pub mod scheduler;
mod scrubs;
mod seal;
mod server;
mod services;
mod state;
mod store;
mod vault;
mod views;

pub use app::App;
pub use config::Config;
pub use server::{Running, start};
pub use store::DatabaseUrl;
