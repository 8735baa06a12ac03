//! A network namespace that stands for the host's own, made by the test and removed by its janitor.

use std::ffi::OsStr;
use std::fs::File;
use std::net::TcpListener;
use std::process::{Command, Output};

use anyhow::{Context, Result, anyhow, ensure};
use nix::sched::{CloneFlags, setns};

/// The namespace in which the cloud's uplinks end, and from which a test's ssh and probes start.
#[derive(Debug)]
pub struct HostNamespace {
    pub name: String,
}

impl HostNamespace {
    pub fn new() -> Result<Self> {
        let name = format!("hearth-test-{:08x}", rand::random::<u32>());
        run(Command::new("ip").args(["netns", "add", &name]))?;
        let namespace = Self { name };
        run(namespace.command("ip").args(["link", "set", "lo", "up"]))?;
        Ok(namespace)
    }

    /// What listens inside the namespace, at an address of its loopback.
    pub fn listen(&self) -> Result<TcpListener> {
        let path = format!("/run/netns/{}", self.name);
        let namespace = File::open(&path).with_context(|| format!("opening {path}"))?;
        // A socket stays where it was made, and a thread ends where it went.
        let listening = std::thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).context("entering the namespace")?;
            TcpListener::bind("127.0.0.1:0").context("listening in the namespace")
        });
        listening
            .join()
            .map_err(|_| anyhow!("entering the namespace panicked"))?
    }

    /// A command that runs inside the namespace.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }
}

/// Runs a command to its end; an error carries what it printed.
pub(crate) fn run(command: &mut Command) -> Result<Output> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output)
}
