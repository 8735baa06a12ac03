//! A whole cloud on Debian 12 as released: systemd keeps the daemons, cgroups are v2, the kernel is Debian's, and the
//! processor has AMD-V. `scripts/test --metal` runs these tests, and the long ones, which are ignored elsewhere.
#![allow(clippy::unwrap_used)]

mod clock;
mod faults;
mod firmware;
mod install;
mod ledger;
mod limits;
mod packages;
mod power;
mod site;
mod stock;
mod upgrade;
