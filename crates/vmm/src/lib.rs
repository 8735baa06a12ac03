//! The microVM monitor: one process per instance, synchronous, no tokio.
//!
//! [`open`] takes what the agent hands over, [`machine`] builds one boot of it, [`lifecycle`] runs boot after
//! boot until the instance ends. While a guest runs, [`vcpu`] threads pass its accesses through the [`bus`]
//! to [`legacy`] devices and [`pci`] functions, whose [`virtio`] workers have threads of their own.

#![cfg_attr(
    any(test, feature = "testing"),
    allow(clippy::unwrap_used, clippy::expect_used)
)]

pub mod acpi;
pub mod boot;
pub mod bus;
pub mod console;
pub mod control;
pub mod cpu;
pub mod devices;
#[cfg(any(test, feature = "testing"))]
pub mod fuzz;
pub mod interrupts;
pub mod jail;
pub mod legacy;
pub mod lifecycle;
pub mod limits;
pub mod machine;
pub mod memory;
pub mod metrics;
pub mod notices;
pub mod open;
pub mod pci;
mod server;
pub mod smbios;
pub mod snapshot;
pub mod spec;
pub mod vcpu;
pub mod virtio;
pub mod vm;
pub mod vmgenid;
