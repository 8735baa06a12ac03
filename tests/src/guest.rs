//! A running instance that answers ssh.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use hearth_api::v1;

pub struct Guest {
    host_namespace: String,
    key: PathBuf,
    pub instance: v1::Instance,
}

impl Guest {
    pub(crate) fn new(host_namespace: String, key: PathBuf, instance: v1::Instance) -> Self {
        Self {
            host_namespace,
            key,
            instance,
        }
    }

    pub fn id(&self) -> &str {
        &self.instance.instance_id
    }

    pub fn private_ip(&self) -> &str {
        &self.instance.private_ip_address
    }

    pub fn public_ip(&self) -> &str {
        &self.instance.public_ip_address
    }

    /// An ssh command line into the guest as root; a test may spawn it and keep it open.
    pub fn ssh_command(&self, script: &str) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.host_namespace, "ssh", "-i"])
            .arg(&self.key)
            .args([
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "UserKnownHostsFile=/dev/null",
            ])
            .args([
                "-o",
                "BatchMode=yes",
                "-o",
                "LogLevel=ERROR",
                "-o",
                "ConnectTimeout=60",
            ])
            .arg(format!("root@{}", self.public_ip()))
            .arg(script)
            .stdin(Stdio::null());
        command
    }

    /// Runs a script in the guest, whatever it ends with.
    pub async fn try_ssh(&self, script: &str) -> Result<Output> {
        let mut command = self.ssh_command(script);
        let output = tokio::task::spawn_blocking(move || command.output()).await?;
        output.with_context(|| format!("ssh into {}", self.id()))
    }

    /// Runs a script in the guest that must succeed; its output without the last newline.
    pub async fn ssh(&self, script: &str) -> Result<String> {
        let output = self.try_ssh(script).await?;
        ensure!(
            output.status.success(),
            "{script:?} in {} ended with {}: {}{}",
            self.id(),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// Whether a TCP connection from the host's namespace to the guest's public address opens within five seconds.
    pub async fn opens_from_host(&self, port: u16) -> Result<bool> {
        let (namespace, address) = (self.host_namespace.clone(), self.public_ip().to_owned());
        let status = tokio::task::spawn_blocking(move || {
            Command::new("ip")
                .args(["netns", "exec", &namespace, "timeout", "5", "bash", "-c"])
                .arg(format!("exec 3<>/dev/tcp/{address}/{port}"))
                .stderr(Stdio::null())
                .status()
        })
        .await??;
        Ok(status.success())
    }

    /// Whether a TCP connection from this guest to another's private address opens.
    pub async fn opens(&self, other: &Guest, port: u16) -> Result<bool> {
        let script = format!("nc -w 8 {} {port} </dev/null", other.private_ip());
        Ok(self.try_ssh(&script).await?.status.success())
    }
}
