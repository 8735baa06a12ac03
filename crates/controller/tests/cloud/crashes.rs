//! SIGKILL of `hearthd` again and again under a mixed load, on both databases. HEARTH_KILLS says how often.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::load::{Ledger, Load};
use crate::postgres::Postgres;
use crate::support::{Cloud, without_public_address};

const CLIENTS: usize = 20;

/// How often, unless the environment says so.
pub fn count(variable: &str, usually: usize) -> usize {
    std::env::var(variable).map_or(usually, |count| count.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_under_load_lose_nothing_on_sqlite() {
    let Some(cloud) = Cloud::with(&["--instance-limit", "100000"]).await else {
        return;
    };
    kill(cloud).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_under_load_lose_nothing_on_postgresql() {
    let Some(postgres) = Postgres::start("kills_under_load_lose_nothing_on_postgresql") else {
        return;
    };
    let arguments = ["--instance-limit", "100000", "--database", &postgres.url()];
    let Some(cloud) = Cloud::with(&arguments).await else {
        return;
    };
    kill(cloud).await;
}

async fn kill(mut cloud: Cloud) {
    cloud.host.capacity.vcpus = 1_000_000;
    cloud.host.capacity.memory_mib = 1 << 40;
    cloud.host.capacity.disk_bytes = 1 << 60;
    let host = cloud.host.keep(vec![cloud.hearthd.door()]);
    let mut launch = cloud.request(1);
    launch.instance_type = "t2.nano".into();
    launch.network_interfaces = without_public_address();
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let endpoints = [cloud.hearthd.endpoint()];
    let kills = count("HEARTH_KILLS", 10);
    let load = Load::start(&ledger, &endpoints, &launch, CLIENTS, "load");
    let (mut working, mut starting) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..kills {
        let (began, before) = (Instant::now(), load.acknowledged());
        tokio::time::sleep(Duration::from_millis(rand::random_range(20..400))).await;
        // A machine that is busy answers few calls.
        while load.acknowledged() == before {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "nothing is acknowledged"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        working += began.elapsed();
        cloud.hearthd.kill();
        let began = Instant::now();
        cloud.hearthd.spawn();
        starting += began.elapsed();
    }
    load.stop().await;
    let client = cloud.hearthd.client().await;
    let mut ledger = std::mem::take(&mut *ledger.lock().unwrap());
    ledger.check(&client).await;
    cloud.until_connected().await;
    ledger.repeat(&client, &launch).await;
    ledger.check(&client).await;
    host.abort();
    eprintln!(
        "{kills} kills in {working:?} of load, {:?} for a start: {} calls acknowledged, {} lost",
        starting / kills as u32,
        ledger.acknowledged,
        ledger.lost
    );
}
