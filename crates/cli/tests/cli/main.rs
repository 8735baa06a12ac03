//! The built `hearth` binary against a service that says what each test wants: JSON shapes, exit codes, waiting.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod answers;
mod errors;
mod fake;
mod keys;
mod pages;
mod upload;
mod waiting;
