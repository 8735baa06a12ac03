//! The virtio memory balloon: how memory comes back from a guest. Virtio 1.2, section 5.5.
//!
//! The host sets a target ([`Handle::set_target`]), the driver allocates pages until that many are in the balloon and
//! tells which ([`pages`]), and the host takes them back. Free-page reporting needs no target: the driver
//! tells of large free ranges as they become free. And the host can ask how the guest feels about its memory
//! ([`statistics`]).
//!
//! All queues have one worker between them: nothing here is on a data path.

mod device;
mod handle;
mod pages;
mod state;
mod statistics;
mod worker;

pub use device::Balloon;
pub use handle::{BalloonOptions, BalloonStatus, Handle};
pub use statistics::Statistic;

#[cfg(test)]
mod tests;
