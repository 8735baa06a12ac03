//! The real-Linux suite: our kernel with busybox under the real monitor, driven over its serial console.
//!
//! `HEARTH_KERNEL` names the kernel, `HEARTH_SHELL` the initrd of `images/shell`; `HEARTH_CMDLINE` is added to
//! the command line. A boot costs 12 s of CPU where KVM interprets the guest's kernel: check much in each.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../boot/guest.rs"]
mod guest;
#[path = "linux.rs"]
mod harness;
#[path = "../guest/tap.rs"]
mod tap;

mod console;
mod cpu;
mod disks;
mod generation;
mod hotplug;
mod kills;
mod memory;
mod snapshot;
mod sockets;
