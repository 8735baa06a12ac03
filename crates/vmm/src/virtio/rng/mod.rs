//! The virtio entropy device. Virtio 1.2, section 5.4.

mod device;
mod worker;

pub use device::Rng;

#[cfg(test)]
mod tests;
