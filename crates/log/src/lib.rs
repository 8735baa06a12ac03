//! Logs on standard error: one line per event, whatever callers, guests and hosts sent, and of bounded length.
//! Imports nothing of ours.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod escape;
#[cfg(feature = "subscriber")]
mod subscriber;

use std::error::Error;

pub use escape::{Escaped, escaped};
#[cfg(feature = "subscriber")]
pub use subscriber::to_stderr;

/// An error with all its causes, on one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // A transparent wrapper says the same again.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
