//! Logs on standard error: one line per event, whatever callers, guests and hosts sent, and of bounded length.
//! Imports nothing of ours.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod escape;
#[cfg(feature = "subscriber")]
mod subscriber;

pub use escape::{Escaped, escaped};
#[cfg(feature = "subscriber")]
pub use subscriber::to_stderr;
