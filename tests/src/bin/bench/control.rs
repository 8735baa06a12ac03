//! The control plane with many simulated hosts: placements per second, the latency of one caller, and what reads of a
//! large cloud cost.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures::future::try_join_all;
use hearth_api::agent::Intents;
use hearth_api::client::Client;
use hearth_api::v1;
use hearth_tests::simulated::{Behaviour, Fleet, Hearthd};
use hearth_tests::upload_image;

use crate::stats::{Row, Samples, print};

mod copies;
mod large;
#[path = "../../../../crates/controller/tests/cloud/postgres.rs"]
#[allow(clippy::unwrap_used, dead_code)]
mod postgres;

use postgres::Postgres;

/// Callers at the same time.
const CALLERS: usize = 64;
/// How long callers launch, per sample.
const SPAN: Duration = Duration::from_secs(4);
/// Launches of the caller who is alone, per sample.
const ALONE: usize = 200;

/// What is measured of one program.
#[derive(Default)]
struct Figures {
    joined: Samples,
    ones: Samples,
    hundreds: Samples,
    alone_p50: Samples,
    alone_p99: Samples,
    member_ms: Samples,
    member_bytes: Samples,
    resident: Samples,
    ready: Samples,
    page: Samples,
    by_tag: Samples,
    by_state: Samples,
    by_id: Samples,
}

pub fn run() -> Result<()> {
    let before = std::env::var_os("HEARTH_BEFORE").map(PathBuf::from);
    let hearthd = hearth_tests::binary("hearthd")?;
    let runtime = tokio::runtime::Runtime::new()?;
    let (mut names, mut all) = (vec!["SQLite"], vec![runtime.block_on(measure(&hearthd, None))?]);
    if let Some(server) = Postgres::durable("bench control") {
        names.push("PostgreSQL");
        all.push(runtime.block_on(measure(&hearthd, Some(&server.url())))?);
    }
    if let Some(program) = before {
        names.push("before, SQLite");
        all.push(runtime.block_on(measure(&program, None))?);
    }
    let hosts = hosts();
    println!("\ncontrol: {hosts} simulated hosts, {CALLERS} callers, databases with full durability\n");
    let column = |figure: fn(&Figures) -> &Samples| all.iter().map(|f| figure(f).clone()).collect();
    print(
        &names,
        &[
            Row {
                name: "hosts joined per second",
                contenders: column(|f| &f.joined),
            },
            Row {
                name: "placements per second, one per call",
                contenders: column(|f| &f.ones),
            },
            Row {
                name: "placements per second, 100 per call",
                contenders: column(|f| &f.hundreds),
            },
            Row {
                name: "RunInstances alone, p50, ms",
                contenders: column(|f| &f.alone_p50),
            },
            Row {
                name: "RunInstances alone, p99, ms",
                contenders: column(|f| &f.alone_p99),
            },
            Row {
                name: "one more member of a group of 1,000 on 1,000 hosts: until all have it, ms",
                contenders: column(|f| &f.member_ms),
            },
            Row {
                name: "the same: bytes to all hosts",
                contenders: column(|f| &f.member_bytes),
            },
            Row {
                name: "100,000 instances: from start to ready, s",
                contenders: column(|f| &f.ready),
            },
            Row {
                name: "100,000 instances: resident, MiB",
                contenders: column(|f| &f.resident),
            },
            Row {
                name: "100,000 instances: a page of 1,000, ms",
                contenders: column(|f| &f.page),
            },
            Row {
                name: "100,000 instances: 1,000 by a tag, ms",
                contenders: column(|f| &f.by_tag),
            },
            Row {
                name: "100,000 instances: 1,000 by state, ms",
                contenders: column(|f| &f.by_state),
            },
            Row {
                name: "100,000 instances: one by id, ms",
                contenders: column(|f| &f.by_id),
            },
        ],
    );
    Ok(())
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

fn hosts() -> usize {
    setting("HEARTH_BENCH_HOSTS", 5000)
}

/// `database`: the URL of a PostgreSQL, instead of SQLite.
async fn measure(program: &Path, database: Option<&str>) -> Result<Figures> {
    let dir = tempfile::Builder::new().prefix("hearth-bench-").tempdir()?;
    // One subnet of 4,091 addresses each, and room for 65,000 instances.
    let zones: Vec<String> = ('a'..='p').map(|letter| format!("bench-1{letter}")).collect();
    let zone_list = zones.join(",");
    let mut arguments = vec![
        "--region",
        "bench-1",
        "--zones",
        &zone_list,
        "--instance-limit",
        "1000000",
    ];
    arguments.extend(database.into_iter().flat_map(|url| ["--database", url]));
    let mut hearthd = Hearthd::start(program, dir.path(), &arguments).await?;
    let result = async {
        let mut figures = launches(&hearthd, dir.path(), &zones).await?;
        large::measure(&mut hearthd, database, &mut figures).await?;
        Ok(figures)
    };
    let result: Result<Figures> = result.await;
    result.with_context(|| hearthd.log_tail())
}

async fn launches(hearthd: &Hearthd, dir: &Path, zones: &[String]) -> Result<Figures> {
    let client = hearthd.client().await?;
    let disk = std::fs::read(std::env::var("HEARTH_TINY_AMI").context("HEARTH_TINY_AMI")?)?;
    let image_id = upload_image(client.image_disks.clone(), "bench", &disk).await?;
    let group = v1::CreateSecurityGroupRequest {
        group_name: "bench".into(),
        description: "bench".into(),
        ..v1::CreateSecurityGroupRequest::default()
    };
    let group = client
        .security_groups
        .clone()
        .create_security_group(group)
        .await?;
    let group = group.into_inner().group_id;
    let mut figures = Figures::default();
    let began = Instant::now();
    let fleet = Fleet::join(&client, dir, hosts(), zones, Behaviour::default()).await?;
    figures.joined.add(hosts() as f64 / began.elapsed().as_secs_f64());
    let request = |count| v1::RunInstancesRequest {
        image_id: image_id.clone(),
        instance_type: "t2.nano".into(),
        min_count: count,
        max_count: count,
        network_interfaces: vec![v1::InstanceNetworkInterfaceSpecification {
            device_index: Some(0),
            associate_public_ip_address: Some(false),
            groups: vec![group.clone()],
            ..Default::default()
        }],
        ..v1::RunInstancesRequest::default()
    };
    // The first launch sends the image's group to its host, and so on: it does not count.
    client.instances.clone().run_instances(request(1)).await?;
    for _ in 0..setting("HEARTH_BENCH_RUNS", 5) {
        let mut latencies = Vec::new();
        for _ in 0..ALONE {
            let began = Instant::now();
            client.instances.clone().run_instances(request(1)).await?;
            latencies.push(began.elapsed().as_secs_f64() * 1000.0);
        }
        latencies.sort_by(f64::total_cmp);
        let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
        figures.alone_p50.add(at(0.5));
        figures.alone_p99.add(at(0.99));
        figures
            .ones
            .add(launch_for(hearthd, zones, 20_000, &request(1)).await?);
        terminate_all(&client).await?;
        figures
            .hundreds
            .add(launch_for(hearthd, zones, 400, &request(100)).await?);
        terminate_all(&client).await?;
    }
    membership(&client, &fleet, request(100), &mut figures).await?;
    let sessions = fleet.counters().sessions.load(Relaxed);
    anyhow::ensure!(
        sessions >= hosts() as u64,
        "{sessions} sessions of {} hosts",
        hosts()
    );
    Ok(figures)
}

/// All callers launch for a while, at most `calls` times together. Answers instances per second.
async fn launch_for(
    hearthd: &Hearthd,
    zones: &[String],
    calls: usize,
    request: &v1::RunInstancesRequest,
) -> Result<f64> {
    let mut callers = Vec::new();
    // Each has a zone, so that all hosts are used.
    for zone in zones.iter().cycle().take(CALLERS) {
        let placement = v1::Placement {
            availability_zone: zone.clone(),
            ..v1::Placement::default()
        };
        let request = v1::RunInstancesRequest {
            placement: Some(placement),
            ..request.clone()
        };
        callers.push((hearthd.client().await?.instances, request));
    }
    let began = Instant::now();
    let work = callers.into_iter().map(|(mut instances, request)| async move {
        let mut launched = 0;
        for _ in 0..calls.div_ceil(CALLERS) {
            if began.elapsed() > SPAN {
                break;
            }
            let answer = instances.run_instances(request.clone()).await?.into_inner();
            launched += answer.instances.len();
        }
        anyhow::Ok(launched)
    });
    let launched: usize = try_join_all(work).await?.into_iter().sum();
    Ok(launched as f64 / began.elapsed().as_secs_f64())
}

/// What it takes until every host of a group's members knows of one more.
async fn membership(
    client: &Client,
    fleet: &Fleet,
    hundred: v1::RunInstancesRequest,
    figures: &mut Figures,
) -> Result<()> {
    let members = setting("HEARTH_BENCH_MEMBERS", 1000).min(hosts());
    let group = v1::CreateSecurityGroupRequest {
        group_name: "members".into(),
        description: "members".into(),
        ..v1::CreateSecurityGroupRequest::default()
    };
    let mut groups = client.security_groups.clone();
    let group = groups.create_security_group(group).await?.into_inner().group_id;
    let from_itself = v1::IpPermission {
        ip_protocol: "-1".into(),
        user_id_group_pairs: vec![v1::UserIdGroupPair {
            group_id: group.clone(),
            ..v1::UserIdGroupPair::default()
        }],
        ..v1::IpPermission::default()
    };
    let rules = v1::AuthorizeSecurityGroupIngressRequest {
        group_id: group.clone(),
        ip_permissions: vec![from_itself],
        ..v1::AuthorizeSecurityGroupIngressRequest::default()
    };
    groups.authorize_security_group_ingress(rules).await?;
    let mut instances = client.instances.clone();
    let count = |intents: &Intents| -> Option<usize> {
        let mut groups = intents.vpcs.iter().flat_map(|vpc| &vpc.security_groups);
        Some(groups.find(|known| known.group_id == group)?.members.len())
    };
    for _ in 0..members / 100 {
        let mut request = hundred.clone();
        for interface in &mut request.network_interfaces {
            interface.groups = vec![group.clone()];
        }
        instances.run_instances(request).await?;
    }
    let has = |members: usize| move |intents: &Intents| count(intents).is_none_or(|known| known == members);
    let limit = Duration::from_secs(120);
    fleet.wait(limit, has(members)).await?;
    for sample in 1..=setting("HEARTH_BENCH_RUNS", 5) {
        let mut request = v1::RunInstancesRequest {
            min_count: 1,
            max_count: 1,
            ..hundred.clone()
        };
        for interface in &mut request.network_interfaces {
            interface.groups = vec![group.clone()];
        }
        let (began, before) = (Instant::now(), fleet.counters().bytes.load(Relaxed));
        instances.run_instances(request).await?;
        fleet.wait(limit, has(members + sample)).await?;
        figures.member_ms.add(began.elapsed().as_secs_f64() * 1000.0);
        let bytes = fleet.counters().bytes.load(Relaxed) - before;
        figures.member_bytes.add(bytes as f64);
    }
    Ok(())
}

/// Terminates all instances, and waits until their hosts have nothing of them.
async fn terminate_all(client: &Client) -> Result<()> {
    let mut instances = client.instances.clone();
    loop {
        let alive = v1::DescribeInstancesRequest {
            filters: vec![v1::Filter {
                name: "instance-state-name".into(),
                values: ["pending", "running", "stopping", "stopped"]
                    .map(String::from)
                    .to_vec(),
            }],
            max_results: 1000,
            ..v1::DescribeInstancesRequest::default()
        };
        let page = instances.describe_instances(alive).await?.into_inner();
        let ids: Vec<String> = page
            .reservations
            .into_iter()
            .flat_map(|reservation| reservation.instances)
            .map(|instance| instance.instance_id)
            .collect();
        if ids.is_empty() {
            break;
        }
        // Pages hold whole reservations.
        for ids in ids.chunks(1000) {
            let request = v1::TerminateInstancesRequest {
                instance_ids: ids.to_vec(),
                dry_run: false,
            };
            instances.terminate_instances(request).await?;
        }
    }
    let going = v1::DescribeInstancesRequest {
        filters: vec![v1::Filter {
            name: "instance-state-name".into(),
            values: vec!["shutting-down".into()],
        }],
        max_results: 5,
        ..v1::DescribeInstancesRequest::default()
    };
    loop {
        let page = instances.describe_instances(going.clone()).await?.into_inner();
        if page.reservations.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
