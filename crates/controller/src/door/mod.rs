//! How callers and agents get in: the API's Unix socket, connections and their limits, and what every call goes through.

pub mod accept;
pub mod calls;
mod connection;
pub mod files;
pub mod forward;
pub mod peers;
mod places;
pub mod socket;
pub mod subscriber;
mod throttle;
