//! Cleaning up after a test however it ends: by success, by a panic, or by a signal.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

/// A shell in a process group of its own that waits until the test's end of a pipe is closed, then removes everything.
#[derive(Debug)]
pub(crate) struct Janitor(Child);

impl Janitor {
    /// `script` is one of `sh`, run with `arguments`; it has to begin by reading its standard input to the end.
    pub(crate) fn new<'a>(script: &str, arguments: impl IntoIterator<Item = &'a OsStr>) -> Result<Self> {
        let child = Command::new("sh")
            .args(["-c", script, "janitor"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // A signal to the test's process group is not for it.
            .process_group(0)
            .spawn()
            .context("starting the janitor")?;
        Ok(Self(child))
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        if let Err(error) = self.0.wait() {
            eprintln!("the janitor is lost: {error}");
        }
    }
}
