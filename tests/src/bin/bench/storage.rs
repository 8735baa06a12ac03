//! Storage: launches from AMIs of two sizes, disks through their engines beside raw files and qcow2, snapshots, imports,
//! and what a collection of the repository takes.

mod collection;
mod disks;
mod imports;
mod launches;
mod snapshots;

use anyhow::{Context as _, Result};
use hearth_api::v1;
use hearth_tests::{Cloud, can_run};

/// Bytes that volumes may claim of each byte of this machine's disk: they are sparse.
const OVERCOMMIT: &str = "1000";
const OVERCOMMIT_VARIABLE: &str = "HEARTH_AGENT_DISK_OVERCOMMIT";

pub fn run(parts: &[String]) -> Result<()> {
    let wants = |part: &str| parts.is_empty() || parts.iter().any(|wanted| wanted == part);
    if wants("disks") {
        disks::run()?;
    }
    if wants("collection") {
        collection::run()?;
    }
    if !["launches", "snapshots", "imports"].into_iter().any(wants) || !can_run("bench storage") {
        return Ok(());
    }
    // SAFETY: no other thread runs yet. The agent, a child, reads it.
    unsafe { std::env::set_var(OVERCOMMIT_VARIABLE, OVERCOMMIT) };
    tokio::runtime::Runtime::new()?.block_on(async {
        let cloud = Cloud::start().await?;
        if wants("launches") {
            launches::run(&cloud).await?;
        }
        if wants("snapshots") {
            snapshots::run(&cloud).await?;
        }
        if wants("imports") {
            imports::run(&cloud)?;
        }
        Ok(())
    })
}

async fn terminate(cloud: &Cloud, ids: Vec<String>) -> Result<()> {
    let request = v1::TerminateInstancesRequest {
        instance_ids: ids.clone(),
        ..Default::default()
    };
    let mut instances = cloud.instances().await?;
    instances.terminate_instances(request.clone()).await?;
    // Who repeats it does not wait for the guest's own shutdown.
    instances.terminate_instances(request).await?;
    for id in ids {
        let ended = cloud.wait_for_state(&id, "terminated").await;
        ended.with_context(|| format!("ending {id}"))?;
    }
    Ok(())
}
