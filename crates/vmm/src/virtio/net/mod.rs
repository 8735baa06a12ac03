//! The virtio network device on a TAP. Virtio 1.2, section 5.1.
//!
//! No offloads yet: each packet is a whole Ethernet frame with its checksums, behind a header that says so.

mod device;
mod packet;
mod rx;
mod tap;
mod tx;

pub use device::Net;

#[cfg(test)]
mod tests;
