//! The virtio block device. Virtio 1.2, section 5.2.

mod device;
mod request;
mod worker;

pub use device::Block;

#[cfg(test)]
mod tests;
