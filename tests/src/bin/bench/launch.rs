//! The control plane: `RunInstances` to the first vCPU entry, and what the daemons cost in memory.

use std::time::Instant;

use anyhow::{Context, Result};
use hearth_api::v1;
use hearth_tests::{Cloud, Daemon, can_run};

use crate::resident::resident_mib;
use crate::stats::{Row, Samples, print};

/// Instances that both daemons know while their memory is measured.
const KNOWN: usize = 10;

pub fn run() -> Result<()> {
    if !can_run("bench launch") {
        return Ok(());
    }
    tokio::runtime::Runtime::new()?.block_on(async {
        let cloud = Cloud::start().await?;
        let mut latency = Samples::default();
        // The first launch fetches the AMI to the host: it does not count.
        for round in 0..=KNOWN {
            let start = Instant::now();
            let id = cloud.launch(|_| {}).await?;
            cloud.wait_for_state(&id, "running").await?;
            if round > 0 {
                latency.add(start.elapsed().as_secs_f64() * 1000.0);
            }
            let request = v1::StopInstancesRequest {
                instance_ids: vec![id.clone()],
                force: true,
                dry_run: false,
            };
            cloud.instances().await?.stop_instances(request).await?;
            cloud.wait_for_state(&id, "stopped").await?;
        }
        let mut hearthd = Samples::default();
        hearthd.add(resident(&cloud, Daemon::Hearthd)?);
        let mut agent = Samples::default();
        agent.add(resident(&cloud, Daemon::Agent)?);
        println!(
            "\nlaunch: a warm AMI, {KNOWN} launches, {} instances known\n",
            KNOWN + 1
        );
        print(
            &["hearth"],
            &[
                Row {
                    name: "RunInstances to first vCPU entry seen by a watcher, ms",
                    contenders: vec![latency],
                },
                Row {
                    name: "hearthd resident, MiB",
                    contenders: vec![hearthd],
                },
                Row {
                    name: "hearth-agent resident, MiB",
                    contenders: vec![agent],
                },
            ],
        );
        Ok(())
    })
}

fn resident(cloud: &Cloud, daemon: Daemon) -> Result<f64> {
    resident_mib(cloud.pid(daemon).context("the daemon is not running")?)
}
