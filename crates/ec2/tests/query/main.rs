//! The protocols as a whole: forms of strangers become messages, and messages become answers that strangers read.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod api;
mod cases;
mod mirror;
mod refusals;
mod round_trip;
