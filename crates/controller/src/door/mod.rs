//! How callers and agents get in: the API's Unix socket, the port of signed requests, connections and their limits, and what every
//! call goes through.

pub mod accept;
mod bearer;
pub mod calls;
mod connection;
pub mod files;
pub mod forward;
pub mod peers;
mod places;
pub mod port;
pub mod socket;
pub mod subscriber;
mod throttle;
pub mod words;

/// The service that has been polled ready, for a call that is its own future; a new one is left in its place
/// (see [`tower::Service`], "Be careful when cloning inner services").
fn take_ready<S: Clone>(service: &mut S) -> S {
    let next = service.clone();
    std::mem::replace(service, next)
}
