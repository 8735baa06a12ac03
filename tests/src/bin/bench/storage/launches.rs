//! `RunInstances` to the first vCPU entry, of an AMI that its host does not have; and what ten launches of one AMI take.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use hearth_api::v1;
use hearth_tests::Cloud;

use super::terminate;
use crate::boot::runs;
use crate::stats::{Row, Samples, print};

const GIB: u64 = 1 << 30;
/// Bytes.
const SIZES: [u64; 2] = [GIB, 100 * GIB];
/// Of one AMI.
const TOGETHER: i32 = 10;

pub async fn run(cloud: &Cloud) -> Result<()> {
    let tiny = std::fs::read(std::env::var_os("HEARTH_TINY_AMI").context("HEARTH_TINY_AMI")?)?;
    let mut amis = Vec::new();
    for size in SIZES {
        let name = format!("bench-{}", size >> 30);
        amis.push(cloud.register_sparse(&name, &tiny, size).await?);
    }
    let mut latencies = [const { Samples::new() }; SIZES.len()];
    for round in 0..=runs()? {
        for (index, ami) in amis.iter().enumerate() {
            let copy = copy(cloud, ami, &format!("bench-{index}-{round}")).await?;
            let begin = Instant::now();
            let id = cloud.launch(|request| request.image_id.clone_from(&copy)).await?;
            cloud.wait_for_state(&id, "running").await?;
            // The first is on a cold host.
            if round > 0 {
                latencies[index].add(begin.elapsed().as_secs_f64() * 1000.0);
            }
            terminate(cloud, vec![id]).await?;
        }
    }
    let [small, large] = latencies;
    println!(
        "\nlaunches: AMIs that are new on their host, {} launches of each in turn\n",
        runs()?
    );
    print(
        &["1 GiB", "100 GiB"],
        &[Row {
            name: "RunInstances to first vCPU entry seen by a watcher, ms",
            contenders: vec![small, large],
        }],
    );
    together(cloud).await
}

/// The same image under another id: no host has it.
async fn copy(cloud: &Cloud, ami: &str, name: &str) -> Result<String> {
    let request = v1::CopyImageRequest {
        source_image_id: ami.to_owned(),
        source_region: "local-1".to_owned(),
        name: name.to_owned(),
        ..Default::default()
    };
    let copied = cloud.images().await?.copy_image(request).await?;
    Ok(copied.into_inner().image_id)
}

async fn together(cloud: &Cloud) -> Result<()> {
    let data = cloud.path("agent");
    let before = allocated(&data)?;
    let mut request = cloud.launch_request();
    (request.min_count, request.max_count) = (TOGETHER, TOGETHER);
    let reservation = cloud
        .instances()
        .await?
        .run_instances(request)
        .await?
        .into_inner();
    let ids: Vec<String> = reservation
        .instances
        .into_iter()
        .map(|one| one.instance_id)
        .collect();
    for id in &ids {
        cloud.guest(id).await?;
    }
    let base = std::fs::read_dir(data.join("images"))?
        .map(|entry| allocated(&entry?.path()))
        .collect::<Result<Vec<u64>>>()?;
    let after = allocated(&data)?;
    let image = std::fs::metadata(std::env::var_os("HEARTH_TINY_AMI").context("HEARTH_TINY_AMI")?)?;
    println!(
        "\ndeduplication: {TOGETHER} guests of one AMI of {} MiB, booted until they answer ssh: {:.1} MiB more on their host, {:.1} MiB for \
         each; images there take {:.1} MiB",
        image.len() >> 20,
        mib(after.saturating_sub(before)),
        mib(after.saturating_sub(before)) / f64::from(TOGETHER),
        mib(base.iter().sum()),
    );
    terminate(cloud, ids).await
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Bytes that files take of the disk. What vanishes meanwhile takes nothing.
fn allocated(path: &Path) -> Result<u64> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else {
        return Ok(0);
    };
    if !metadata.is_dir() {
        return Ok(metadata.blocks() * 512);
    }
    let Ok(entries) = std::fs::read_dir(path) else {
        return Ok(0);
    };
    entries.map(|entry| allocated(&entry?.path())).sum()
}
