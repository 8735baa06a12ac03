//! The virtio network device on a TAP. Virtio 1.2, section 5.1.
//!
//! Each pair of queues has a worker ([`exchange`]) and a queue of the TAP. [`rx`] and [`tx`] move a packet by one
//! system call between the TAP and guest memory, large ones that nobody has segmented or summed included:
//! [`offloads`] says which, and checks what the guest writes about its packets. The [`control`] queue says how
//! many pairs are in use.
//!
//! A packet that cannot be moved is dropped and counted, as on a wire: one that does not fit the buffers, one whose
//! header is wrong, one for an interface that is down. It never breaks the device.

mod control;
mod device;
mod exchange;
mod offloads;
mod pairs;
mod posted;
mod rx;
mod state;
mod tap;
mod tx;
mod unplugged;

pub use device::{MAX_PAIRS, Net, NetConfig, NetLimits};
pub use unplugged::Unplugged;

#[cfg(test)]
mod tests;
