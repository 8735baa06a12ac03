//! Cleaning up after a cloud however its test ends: by success, by a panic, or by a signal.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

/// A shell in a process group of its own that waits until the test's end of a pipe is closed, then removes everything.
#[derive(Debug)]
pub(crate) struct Janitor(Child);

/// Arguments: the cloud's directory, the agent's binary, the host's namespace.
const SCRIPT: &str = r#"
cat >/dev/null
pkill -KILL -f -- "--data-dir $1/"
"$2" cleanup --data-dir "$1/agent" --host-network-namespace "$3" >>"$1/cleanup.log" 2>&1 || cat "$1/cleanup.log" >&2
ip netns delete "$3"
rm -rf "$1"
"#;

impl Janitor {
    pub(crate) fn new(dir: &Path, agent: &Path, namespace: &str) -> Result<Self> {
        let child = Command::new("sh")
            .args(["-c", SCRIPT, "janitor"])
            .arg(dir)
            .arg(agent)
            .arg(namespace)
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
