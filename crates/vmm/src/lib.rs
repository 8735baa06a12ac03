//! The microVM monitor: one process per instance, synchronous, no tokio.
//!
//! To read it as a story, take the modules in this order.
//!
//! **What comes in.** The agent starts `hearth-vmm` with a [`spec`] and open descriptors; [`open`] checks and takes
//! them, and the process shuts itself in its [`jail`]. What is attached, and in which slot, is in [`devices`].
//!
//! **One boot.** [`machine`] builds it: the guest's [`memory`], a KVM [`vm`], its processors ([`cpu`]), the kernel
//! and its parameters ([`boot`]), and the tables by which the guest finds the rest ([`acpi`], [`smbios`]).
//!
//! **While the guest runs.** Each [`vcpu`] has a thread. What the guest reads and writes beside its memory comes out
//! of KVM there and goes over the [`bus`] to the [`legacy`] ports or to [`pci`] functions. Behind those are
//! [`virtio`] devices, whose workers have threads and queues of their own: a disk that is slow holds up nobody else.
//! What a disk begins with may still be on its way to the host ([`bases`]).
//! They wake the guest by [`interrupts`], keep to their [`limits`], and count in [`metrics`] what they do. The serial
//! port's output has a thread too, in [`console`].
//!
//! **Who is in charge.** [`lifecycle`] runs boot after boot until the instance ends. It hears the guest through
//! [`notices`], and clients by the [`control`] protocol.
//!
//! **Out of time.** A [`snapshot`] keeps a paused machine in files; a machine that is restored from one gets a new
//! generation id ([`vmgenid`]), so that it knows of its twins.
//!
//! Nothing that comes from the guest, from a client or out of a file is trusted: it is parsed once, into a type
//! that holds no wrong values.

#![cfg_attr(
    any(test, feature = "testing"),
    allow(clippy::unwrap_used, clippy::expect_used)
)]

pub mod acpi;
pub mod bases;
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
mod random;
mod server;
pub mod smbios;
pub mod snapshot;
pub mod spec;
pub mod vcpu;
pub mod virtio;
pub mod vm;
pub mod vmgenid;
