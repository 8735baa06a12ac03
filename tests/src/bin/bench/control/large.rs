//! A cloud of 100,000 instances, which are written into its database: what its start takes, and what reads of it do.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use hearth_api::v1;
use hearth_tests::simulated::Hearthd;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};

use super::{Figures, setting};
use crate::resident::resident_mib;

/// How many have each value of the tag `Part`; of 100,000, as many are stopped.
const PART: usize = 1000;

pub(super) async fn measure(hearthd: &mut Hearthd, figures: &mut Figures) -> Result<()> {
    hearthd.kill()?;
    let database = hearthd.data_dir().join("hearth.db");
    let options = SqliteConnectOptions::new().filename(&database);
    let mut connection = options.connect().await?;
    let objects: i64 =
        sqlx::query_scalar("SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'objects'")
            .fetch_one(&mut connection)
            .await?;
    if objects == 0 {
        // A version whose database has other tables.
        return Ok(());
    }
    fill(&mut connection, setting("HEARTH_BENCH_INSTANCES", 100_000)).await?;
    connection.close().await?;
    for _ in 0..setting("HEARTH_BENCH_RUNS", 5) {
        hearthd.kill()?;
        figures.ready.add(hearthd.restart().await?.as_secs_f64());
        read(hearthd, figures).await?;
        let pid = hearthd.pid().context("hearthd is not running")?;
        figures.resident.add(resident_mib(pid)?);
    }
    Ok(())
}

/// Copies an instance, with all that it holds.
async fn fill(connection: &mut SqliteConnection, count: usize) -> Result<()> {
    let begin = "CREATE TEMP TABLE copies AS
            WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?),
                 hosts(host, place) AS (SELECT id, row_number() OVER (ORDER BY id) - 1
                                        FROM objects WHERE kind = 'host')
            SELECT n, printf('i-%017x', n) AS id, host
            FROM numbers JOIN hosts ON place = n % (SELECT count(*) FROM hosts)";
    sqlx::query(begin)
        .bind(i64::try_from(count)?)
        .execute(&mut *connection)
        .await?;
    let original: String = sqlx::query_scalar(
        "SELECT id FROM objects WHERE kind = 'instance' AND body ->> 'state' = 'running' LIMIT 1",
    )
    .fetch_one(&mut *connection)
    .await?;
    let reservations = "INSERT INTO objects (kind, id, account, version, body)
        SELECT o.kind, printf('r-%017x', c.n), o.account, o.version, json_set(o.body, '$.id', printf('r-%017x', c.n))
        FROM copies c, objects o
        WHERE o.kind = 'reservation'
          AND o.id = (SELECT body ->> '$.reservation_id' FROM objects WHERE kind = 'instance' AND id = ?)";
    sqlx::query(reservations)
        .bind(&original)
        .execute(&mut *connection)
        .await?;
    for (kind, new_id, change) in [
        (
            "instance",
            "c.id",
            "'$.id', c.id, '$.host_id', c.host, '$.reservation_id', printf('r-%017x', c.n),
             '$.state', iif(c.n % 100 = 0, 'stopped', 'running'),
             '$.tags', json_object('Part', printf('%d', c.n / 1000))",
        ),
        ("claim", "c.id", "'$.instance_id', c.id, '$.host_id', c.host"),
        (
            "network-interface",
            "printf('eni-%017x', c.n)",
            "'$.id', printf('eni-%017x', c.n), '$.attachment.instance_id', c.id,
             '$.private_ip', printf('10.%d.%d.%d', c.n >> 16, (c.n >> 8) & 255, c.n & 255),
             '$.mac_address', printf('06:00:00:%02x:%02x:%02x', c.n >> 16, (c.n >> 8) & 255, c.n & 255)",
        ),
        (
            "volume",
            "printf('vol-%017x', c.n)",
            "'$.id', printf('vol-%017x', c.n), '$.attachment.instance_id', c.id, '$.host_id', c.host",
        ),
    ] {
        let owner = match kind {
            "instance" => "$.id",
            "claim" => "$.instance_id",
            _ => "$.attachment.instance_id",
        };
        let copy = format!(
            "INSERT INTO objects (kind, id, account, version, body)
             SELECT o.kind, {new_id}, o.account, o.version, json_set(o.body, {change})
             FROM copies c, objects o
             WHERE o.kind = '{kind}' AND o.body ->> '{owner}' = ?"
        );
        let copied = sqlx::query(sqlx::AssertSqlSafe(copy))
            .bind(&original)
            .execute(&mut *connection)
            .await?
            .rows_affected();
        ensure!(copied == count as u64, "{copied} copies of the {kind}");
    }
    Ok(())
}

async fn read(hearthd: &Hearthd, figures: &mut Figures) -> Result<()> {
    let mut instances = hearthd.client().await?.instances;
    let filter = |name: &str, value: &str| v1::Filter {
        name: name.into(),
        values: vec![value.into()],
    };
    let page = Some(v1::Page {
        max_results: 1000,
        ..v1::Page::default()
    });
    let id = format!("i-{:017x}", 4711);
    let reads = [
        (&mut figures.page, page.clone(), Vec::new(), Vec::new(), PART),
        (
            &mut figures.by_tag,
            None,
            vec![filter("tag:Part", "17")],
            Vec::new(),
            PART,
        ),
        (
            &mut figures.by_state,
            page,
            vec![filter("instance-state-name", "stopped")],
            Vec::new(),
            PART,
        ),
        (&mut figures.by_id, None, Vec::new(), vec![id], 1),
    ];
    for (samples, page, filters, instance_ids, expected) in reads {
        let request = v1::DescribeInstancesRequest {
            instance_ids,
            page,
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
