//! Whole machines: Debian 12 with systemd, cgroup v2, Debian's own kernel, and AMD-V, emulated by QEMU (`images/metal`).
//!
//! A [`Machine`] is resumed from the state that it had after a boot, on a disk of its own over the common one. What
//! it runs comes from this one by 9p, read-only and under the same paths: the checkout, the programs beside the test's
//! own, the tiny AMI. Everything goes away with the [`Rack`], however the test ends.

mod machine;
mod rack;
mod wire;

pub use machine::{Ended, Machine};
pub use rack::Rack;
