//! The virtio block device. Virtio 1.2, section 5.2.

mod device;
mod gone;
mod in_flight;
mod patience;
mod request;
mod worker;

pub use device::{Block, Cache, MAX_QUEUES};
pub use gone::Gone;

#[cfg(test)]
mod tests;
