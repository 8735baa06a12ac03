//! The microVM monitor: one process per instance, synchronous, no tokio.

pub mod control;
pub mod memory;
pub mod pci;
pub mod spec;
pub mod virtio;
