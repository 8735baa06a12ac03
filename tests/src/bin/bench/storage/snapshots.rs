//! CreateSnapshot to `completed`, by how much was changed and by how large the volume is.

use std::time::Instant;

use anyhow::{Context as _, Result};
use hearth_api::v1;
use hearth_tests::{Cloud, Guest};

use super::terminate;
use crate::boot::runs;
use crate::stats::{Row, Samples, print};

/// GiB of the volumes.
const SIZES: [i32; 2] = [1, 1024];
const CHANGED: [(u64, &str); 3] = [
    (16, "16 MiB changed, ms"),
    (64, "64 MiB changed, ms"),
    (256, "256 MiB changed, ms"),
];
const NOTHING: &str = "nothing changed, ms";

pub async fn run(cloud: &Cloud) -> Result<()> {
    let guest = cloud.launch_guest(|_| {}).await?;
    let mut volumes = Vec::new();
    for (size, device) in SIZES.into_iter().zip(["/dev/sdf", "/dev/sdg"]) {
        volumes.push(attached(cloud, &guest, size, device).await?);
    }
    let mut rows = CHANGED.map(|(_, name)| (name, SIZES.map(|_| Samples::default())));
    let mut nothing = SIZES.map(|_| Samples::default());
    for round in 0..=runs()? {
        for ((mib, _), (_, samples)) in CHANGED.into_iter().zip(&mut rows) {
            for (volume, samples) in volumes.iter().zip(samples) {
                write(&guest, volume, mib).await?;
                let took = snapshot(cloud, volume).await?;
                // The first has all that was ever written.
                if round > 0 {
                    samples.add(took);
                }
            }
        }
        for (volume, samples) in volumes.iter().zip(&mut nothing) {
            samples.add(snapshot(cloud, volume).await?);
        }
    }
    println!(
        "\nsnapshots: CreateSnapshot to completed, {} runs in turn, of a guest that runs\n",
        runs()?
    );
    let rows = [(NOTHING, nothing)].into_iter().chain(rows);
    let rows: Vec<Row> = rows
        .map(|(name, samples)| Row {
            name,
            contenders: samples.into(),
        })
        .collect();
    print(&["volume of 1 GiB", "of 1 TiB"], &rows);
    terminate(cloud, vec![guest.id().to_owned()]).await
}

async fn attached(cloud: &Cloud, guest: &Guest, size: i32, device: &str) -> Result<String> {
    let zone = cloud.describe(guest.id()).await?.placement;
    let request = v1::CreateVolumeRequest {
        availability_zone: zone.context("an instance without a placement")?.availability_zone,
        size: Some(size),
        ..Default::default()
    };
    let mut volumes = cloud.volumes().await?;
    let id = volumes.create_volume(request).await?.into_inner().volume_id;
    let request = v1::AttachVolumeRequest {
        volume_id: id.clone(),
        instance_id: guest.id().to_owned(),
        device: device.to_owned(),
        dry_run: false,
    };
    volumes.attach_volume(request).await?;
    guest
        .ssh(&format!("until [ -b {} ]; do usleep 200000; done", path(&id)))
        .await?;
    Ok(id)
}

fn path(volume: &str) -> String {
    format!("/dev/disk/by-id/virtio-{}", volume.replace('-', ""))
}

/// Noise, at the beginning.
async fn write(guest: &Guest, volume: &str, mib: u64) -> Result<()> {
    let write = format!(
        "dd if=/dev/urandom of={} bs=1M count={mib} conv=notrunc,fsync 2>/dev/null",
        path(volume)
    );
    guest.ssh(&write).await?;
    Ok(())
}

/// Milliseconds.
async fn snapshot(cloud: &Cloud, volume: &str) -> Result<f64> {
    let request = v1::CreateSnapshotRequest {
        volume_id: volume.to_owned(),
        ..Default::default()
    };
    let mut snapshots = cloud.snapshots().await?;
    let begin = Instant::now();
    let id = snapshots.create_snapshot(request).await?.into_inner().snapshot_id;
    let describe = v1::DescribeSnapshotsRequest {
        snapshot_ids: vec![id.clone()],
        ..Default::default()
    };
    loop {
        let told = snapshots.describe_snapshots(describe.clone()).await?.into_inner();
        let one = told
            .snapshots
            .into_iter()
            .next()
            .with_context(|| format!("{id} is gone"))?;
        match one.state.as_str() {
            "completed" => return Ok(begin.elapsed().as_secs_f64() * 1000.0),
            "pending" => tokio::time::sleep(std::time::Duration::from_millis(2)).await,
            state => anyhow::bail!("{id} is in state {state}: {}", one.state_message),
        }
    }
}
