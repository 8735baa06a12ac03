//! A cloud of 100,000 instances, which are written into its database: what its start takes, and what reads of it do.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use hearth_api::v1;
use hearth_tests::simulated::Hearthd;

use super::copies::Database;
use super::{Figures, setting};
use crate::resident::resident_mib;

/// How many have each value of the tag `Part`; of 100,000, as many are stopped.
const PART: usize = 1000;

pub(super) async fn measure(
    hearthd: &mut Hearthd,
    database: Option<&str>,
    figures: &mut Figures,
) -> Result<()> {
    hearthd.kill()?;
    let mut database = match database {
        Some(url) => Database::postgres(url).await?,
        None => Database::sqlite(&hearthd.data_dir().join("hearth.db")).await?,
    };
    if !database.has_objects().await? {
        // A version whose database has other tables.
        return Ok(());
    }
    database.fill(setting("HEARTH_BENCH_INSTANCES", 100_000)).await?;
    database.close().await?;
    for _ in 0..setting("HEARTH_BENCH_RUNS", 5) {
        hearthd.kill()?;
        figures.ready.add(hearthd.restart().await?.as_secs_f64());
        read(hearthd, figures).await?;
        let pid = hearthd.pid().context("hearthd is not running")?;
        figures.resident.add(resident_mib(pid)?);
    }
    Ok(())
}

async fn read(hearthd: &Hearthd, figures: &mut Figures) -> Result<()> {
    let mut instances = hearthd.client().await?.instances;
    let filter = |name: &str, value: &str| v1::Filter {
        name: name.into(),
        values: vec![value.into()],
    };
    const PAGE: i32 = 1000;
    const ALL: i32 = 0;
    let id = format!("i-{:017x}", 4711);
    let reads = [
        (&mut figures.page, PAGE, Vec::new(), Vec::new(), PART),
        (
            &mut figures.by_tag,
            ALL,
            vec![filter("tag:Part", "17")],
            Vec::new(),
            PART,
        ),
        (
            &mut figures.by_state,
            PAGE,
            vec![filter("instance-state-name", "stopped")],
            Vec::new(),
            PART,
        ),
        (&mut figures.by_id, ALL, Vec::new(), vec![id], 1),
    ];
    for (samples, max_results, filters, instance_ids, expected) in reads {
        let request = v1::DescribeInstancesRequest {
            instance_ids,
            max_results,
            filters,
            ..v1::DescribeInstancesRequest::default()
        };
        // The first read of all connects.
        for is_measured in [false, true] {
            let began = Instant::now();
            let answer = instances.describe_instances(request.clone()).await?.into_inner();
            let took = began.elapsed().as_secs_f64() * 1000.0;
            let told: usize = answer.reservations.iter().map(|r| r.instances.len()).sum();
            // Pages hold whole reservations.
            ensure!(told >= expected, "{told} instances of {expected}");
            if is_measured {
                samples.add(took);
            }
        }
    }
    Ok(())
}
