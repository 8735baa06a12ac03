//! `hearth-agent cleanup`: ends every monitor and removes every cgroup and network of a data directory.
//!
//! Volumes, images and records stay: the instances are as after a power failure.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use hearth_network::Network;
use hearth_vmm::control::Request;

use crate::monitor::MonitorHandle;
use crate::networks::{self, Metadata};
use crate::{agent, chain, jail, lock};

/// What a monitor needs to flush its disks.
const GRACE: Duration = Duration::from_secs(10);

/// # Errors
/// An agent still works there, or something could not be ended.
pub async fn cleanup(data_dir: &Path, host_namespace: Option<&str>, cgroup: &str) -> anyhow::Result<()> {
    if !data_dir.exists() {
        return Ok(());
    }
    let dir = agent::data_dir(data_dir)?;
    let _lock = lock::take(&dir)?;
    let mut endings = Vec::new();
    for instance in std::fs::read_dir(dir.instances())? {
        let instance = instance?.path();
        for launch in std::fs::read_dir(&instance)? {
            let launch = launch?.path();
            if launch.is_dir()
                && let Some(monitor) = MonitorHandle::find(&launch).await?
            {
                endings.push(end(monitor));
            }
        }
    }
    let count = endings.len();
    for ended in futures::future::join_all(endings).await {
        ended?;
    }
    jail::demolish(cgroup, &dir);
    let settings = networks::config(&dir, host_namespace)?;
    let network = Network::new(settings, Arc::new(Metadata::default())).await?;
    let vpcs = network.vpcs().await?;
    for vpc in &vpcs {
        network
            .remove_vpc(vpc)
            .await
            .with_context(|| format!("removing VPC {vpc}"))?;
    }
    network
        .release_host()
        .await
        .context("switching the host's forwarding off")?;
    tracing::info!(monitors = count, vpcs = vpcs.len(), "cleaned up");
    Ok(())
}

async fn end(mut monitor: MonitorHandle) -> anyhow::Result<()> {
    if let Err(error) = monitor.ask(Request::Stop).await {
        tracing::warn!(error = %chain(&error), "asking a monitor to stop");
    }
    let ended = async { while !monitor.ended_or_told().await {} };
    if tokio::time::timeout(GRACE, ended).await.is_err() {
        monitor.kill()?;
        while !monitor.ended_or_told().await {}
    }
    Ok(())
}
