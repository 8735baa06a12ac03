//! The jail: what a guest that has broken out of its devices would find.
//!
//! The agent starts a monitor in a pid namespace and a cgroup of its own and hands over every descriptor. The
//! monitor does the rest to itself, in [`enter`], before it reads a byte that a guest may have written: it is
//! there already, with its libraries, so the root that it goes to can be empty. Then each thread is put under
//! the seccomp filter of its [`Role`] as it starts ([`spawn`]). The filters are compiled at build time from
//! `seccomp/filters.list`.

mod filter;
mod process;
mod role;
mod threads;

pub use process::{EnterError, enter};
pub use role::Role;
pub use threads::{FilterError, filter_threads, spawn};
