//! Hosts: who enrolled, what they report, what is claimed of them.

use sqlx::SqliteConnection;

use super::{Result, now};
use crate::scheduler::{Host, Resources};
use hearth_api::agent::Capacity;

/// A host that was just enrolled.
pub async fn insert(c: &mut SqliteConnection, id: &str, availability_zone: &str) -> Result<()> {
    sqlx::query("INSERT INTO hosts (id, availability_zone, enrolled_at) VALUES (?, ?, ?)")
        .bind(id)
        .bind(availability_zone)
        .bind(now())
        .execute(c)
        .await?;
    Ok(())
}

/// Raises every host's generation beyond what it can have heard of a store that was set back.
pub async fn raise_generations(c: &mut SqliteConnection) -> Result<()> {
    const BEYOND: i64 = 1 << 32;
    sqlx::query("UPDATE hosts SET generation = generation + ?")
        .bind(BEYOND)
        .execute(c)
        .await?;
    Ok(())
}

/// The zone that a host enrolled for; `None` for a host that is unknown or forgotten.
pub async fn availability_zone(c: &mut SqliteConnection, id: &str) -> Result<Option<String>> {
    sqlx::query_scalar("SELECT availability_zone FROM hosts WHERE id = ? AND forgotten_at IS NULL")
        .bind(id)
        .fetch_optional(c)
        .await
}

/// Ids and zones of all hosts.
pub async fn zones(c: &mut SqliteConnection) -> Result<Vec<(String, String)>> {
    sqlx::query_as("SELECT id, availability_zone FROM hosts WHERE forgotten_at IS NULL")
        .fetch_all(c)
        .await
}

/// What a host said of itself when its session began.
#[derive(Debug, Clone)]
pub struct Greeting<'a> {
    pub host_id: &'a str,
    pub hostname: &'a str,
    pub agent_version: &'a str,
    pub capacity: &'a Capacity,
    pub uefi: bool,
}

pub async fn report(c: &mut SqliteConnection, greeting: &Greeting<'_>) -> Result<()> {
    let capacity = greeting.capacity;
    sqlx::query(
        "INSERT INTO host_reports (host_id, hostname, agent_version, vcpus, memory_mib, disk_bytes, cpus, reported_at,
             uefi)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (host_id) DO UPDATE SET hostname = ?2, agent_version = ?3, vcpus = ?4, memory_mib = ?5,
             disk_bytes = ?6, cpus = ?7, reported_at = ?8, uefi = ?9",
    )
    .bind(greeting.host_id)
    .bind(greeting.hostname)
    .bind(greeting.agent_version)
    .bind(capacity.vcpus)
    .bind(signed(capacity.memory_mib))
    .bind(signed(capacity.disk_bytes))
    .bind(capacity.cpus)
    .bind(now())
    .bind(greeting.uefi)
    .execute(c)
    .await?;
    Ok(())
}

/// A host's capacity as an observation says it.
pub async fn resize(c: &mut SqliteConnection, host_id: &str, capacity: &Capacity) -> Result<()> {
    sqlx::query(
        "UPDATE host_reports SET vcpus = ?2, memory_mib = ?3, disk_bytes = ?4, cpus = ?5, reported_at = ?6
         WHERE host_id = ?1",
    )
    .bind(host_id)
    .bind(capacity.vcpus)
    .bind(signed(capacity.memory_mib))
    .bind(signed(capacity.disk_bytes))
    .bind(capacity.cpus)
    .bind(now())
    .execute(c)
    .await?;
    Ok(())
}

/// What a host last said of its capacity.
pub async fn capacity(c: &mut SqliteConnection, host_id: &str) -> Result<Option<Capacity>> {
    let row: Option<(u32, i64, i64, u32)> =
        sqlx::query_as("SELECT vcpus, memory_mib, disk_bytes, cpus FROM host_reports WHERE host_id = ?")
            .bind(host_id)
            .fetch_optional(c)
            .await?;
    Ok(row.map(|(vcpus, memory_mib, disk_bytes, cpus)| Capacity {
        vcpus,
        memory_mib: unsigned(memory_mib),
        disk_bytes: unsigned(disk_bytes),
        cpus,
    }))
}

/// All hosts as the scheduler sees them. Volumes are the disk claims: they outlive stops, and some their instance.
pub async fn picture(c: &mut SqliteConnection, connected: impl Fn(&str) -> bool) -> Result<Vec<Host>> {
    #[derive(sqlx::FromRow)]
    struct Row {
        id: String,
        availability_zone: String,
        uefi: bool,
        vcpus: i64,
        memory_mib: i64,
        disk_bytes: i64,
        claimed_vcpus: i64,
        claimed_memory: i64,
        claimed_gib: i64,
    }
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT h.id, h.availability_zone, ifnull(r.uefi, 0) AS uefi, ifnull(r.vcpus, 0) AS vcpus, ifnull(r.memory_mib, 0) AS memory_mib,
             ifnull(r.disk_bytes, 0) AS disk_bytes,
             (SELECT ifnull(sum(vcpus), 0) FROM capacity_claims WHERE host_id = h.id) AS claimed_vcpus,
             (SELECT ifnull(sum(memory_mib), 0) FROM capacity_claims WHERE host_id = h.id) AS claimed_memory,
             (SELECT ifnull(sum(size_gib), 0) FROM volumes WHERE host_id = h.id) AS claimed_gib
         FROM hosts h LEFT JOIN host_reports r ON r.host_id = h.id WHERE h.forgotten_at IS NULL ORDER BY h.id",
    )
    .fetch_all(c)
    .await?;
    let hosts = rows.into_iter().map(|row| Host {
        connected: connected(&row.id),
        id: row.id,
        availability_zone: row.availability_zone,
        uefi: row.uefi,
        total: Resources {
            vcpus: unsigned(row.vcpus),
            memory_mib: unsigned(row.memory_mib),
            disk_bytes: unsigned(row.disk_bytes),
        },
        claimed: Resources {
            vcpus: unsigned(row.claimed_vcpus),
            memory_mib: unsigned(row.claimed_memory),
            disk_bytes: unsigned(row.claimed_gib) << 30,
        },
    });
    Ok(hosts.collect())
}

/// What a host's agent said of the machine, and when the host joined.
#[derive(Debug, sqlx::FromRow)]
pub struct Profile {
    pub id: String,
    pub enrolled_at: i64,
    /// Empty before the first session, as `agent_version` is.
    pub hostname: String,
    pub agent_version: String,
}

/// Of all hosts that are not forgotten, in the order of their ids.
pub async fn profiles(c: &mut SqliteConnection) -> Result<Vec<Profile>> {
    sqlx::query_as(
        "SELECT h.id, h.enrolled_at, ifnull(r.hostname, '') AS hostname, ifnull(r.agent_version, '') AS agent_version
         FROM hosts h LEFT JOIN host_reports r ON r.host_id = h.id WHERE h.forgotten_at IS NULL ORDER BY h.id",
    )
    .fetch_all(c)
    .await
}

/// Volumes on a host, those that outlived their instance too.
pub async fn volumes(c: &mut SqliteConnection, host_id: &str) -> Result<Vec<String>> {
    sqlx::query_scalar("SELECT id FROM volumes WHERE host_id = ? ORDER BY id")
        .bind(host_id)
        .fetch_all(c)
        .await
}

/// Ends a host's membership: its report, keys, claims and volumes go. Its instances must be terminated already: their
/// rows still refer to the host, whose own row stays for them.
pub async fn forget(c: &mut SqliteConnection, host_id: &str) -> Result<()> {
    for statement in [
        "DELETE FROM tags WHERE resource_id IN (SELECT id FROM volumes WHERE host_id = ?)",
        "DELETE FROM volumes WHERE host_id = ?",
        "DELETE FROM capacity_claims WHERE host_id = ?",
        "DELETE FROM host_reports WHERE host_id = ?",
        "DELETE FROM host_keys WHERE host_id = ?",
        "DELETE FROM join_tokens WHERE host_id = ?",
    ] {
        sqlx::query(statement).bind(host_id).execute(&mut *c).await?;
    }
    sqlx::query("UPDATE hosts SET forgotten_at = ? WHERE id = ?")
        .bind(now())
        .bind(host_id)
        .execute(c)
        .await?;
    Ok(())
}

/// SQLite's integers are signed; what does not fit is as good as endless.
pub(super) fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}
