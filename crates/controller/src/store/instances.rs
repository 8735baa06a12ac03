//! Instances: their rows, and the one place where a change of their life is written.

use std::collections::HashMap;

use hearth_api::InstanceState;
use hearth_api::agent::instance_intent::Desired;
use sqlx::SqliteConnection;

use super::hosts::{signed, unsigned};
use super::{Result, WriteTransaction, addresses, list, now, security_groups, tags};
use crate::lifecycle::{Change, Hold, Lifecycle, ReasonChange};

#[derive(Debug, Clone, sqlx::FromRow)]
pub struct InstanceRow {
    pub id: String,
    pub reservation_id: String,
    pub ami_launch_index: i64,
    pub image_id: String,
    pub instance_type: String,
    pub host_id: String,
    pub availability_zone: String,
    pub key_name: String,
    pub public_key: String,
    pub user_data: Vec<u8>,
    pub client_token: String,
    pub shutdown_behavior: String,
    pub http_tokens: String,
    pub http_endpoint: String,
    pub http_hop_limit: i64,
    pub metadata_tags: String,
    pub auto_recovery: String,
    pub public_address: bool,
    pub launch_time: i64,
    pub desired: i64,
    pub run: i64,
    pub reboot: i64,
    pub force: bool,
    pub state: i64,
    pub reason_code: String,
    pub reason_message: String,
    pub transition_reason: String,
}

/// Of `auto_recovery`.
pub const AUTO_RECOVERY_DEFAULT: &str = "default";
pub const AUTO_RECOVERY_DISABLED: &str = "disabled";

/// Of `metadata_tags`.
pub const METADATA_TAGS_ENABLED: &str = "enabled";

/// `instance-initiated-shutdown-behavior`.
pub const SHUTDOWN_STOP: &str = "stop";
pub const SHUTDOWN_TERMINATE: &str = "terminate";

impl InstanceRow {
    pub fn state(&self) -> InstanceState {
        // Only codes that `InstanceState` made are ever written.
        i32::try_from(self.state)
            .ok()
            .and_then(InstanceState::from_code)
            .unwrap_or(InstanceState::Terminated)
    }

    pub fn lifecycle(&self) -> Lifecycle {
        let desired = i32::try_from(self.desired)
            .ok()
            .and_then(|d| Desired::try_from(d).ok());
        Lifecycle {
            state: self.state(),
            desired: desired.unwrap_or(Desired::Unspecified),
            run: unsigned(self.run),
            reboot: unsigned(self.reboot),
            force: self.force,
            power_off_terminates: self.shutdown_behavior == SHUTDOWN_TERMINATE,
        }
    }
}

pub async fn insert_reservation(c: &mut SqliteConnection, id: &str) -> Result<()> {
    sqlx::query("INSERT INTO reservations (id, created_at) VALUES (?, ?)")
        .bind(id)
        .bind(now())
        .execute(c)
        .await?;
    Ok(())
}

pub async fn insert(c: &mut SqliteConnection, row: &InstanceRow) -> Result<()> {
    sqlx::query(
        "INSERT INTO instances (id, reservation_id, ami_launch_index, image_id, instance_type, host_id,
             availability_zone, key_name, public_key, user_data, client_token, shutdown_behavior, http_tokens,
             http_endpoint, http_hop_limit, metadata_tags, auto_recovery, public_address, launch_time, desired, run, reboot,
             force, state)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&row.id)
    .bind(&row.reservation_id)
    .bind(row.ami_launch_index)
    .bind(&row.image_id)
    .bind(&row.instance_type)
    .bind(&row.host_id)
    .bind(&row.availability_zone)
    .bind(&row.key_name)
    .bind(&row.public_key)
    .bind(&row.user_data)
    .bind(&row.client_token)
    .bind(&row.shutdown_behavior)
    .bind(&row.http_tokens)
    .bind(&row.http_endpoint)
    .bind(row.http_hop_limit)
    .bind(&row.metadata_tags)
    .bind(&row.auto_recovery)
    .bind(row.public_address)
    .bind(row.launch_time)
    .bind(row.desired)
    .bind(row.run)
    .bind(row.reboot)
    .bind(row.force)
    .bind(row.state)
    .execute(c)
    .await?;
    Ok(())
}

/// The named instances that exist, in the order of their ids.
pub async fn by_ids<S: AsRef<str>>(c: &mut SqliteConnection, ids: &[S]) -> Result<Vec<InstanceRow>> {
    sqlx::query_as("SELECT * FROM instances WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id")
        .bind(list(ids))
        .fetch_all(c)
        .await
}

pub async fn all(c: &mut SqliteConnection) -> Result<Vec<InstanceRow>> {
    sqlx::query_as("SELECT * FROM instances ORDER BY reservation_id, ami_launch_index")
        .fetch_all(c)
        .await
}

/// Instances of a host that are not terminated.
pub async fn alive_on(c: &mut SqliteConnection, host_id: &str) -> Result<Vec<InstanceRow>> {
    sqlx::query_as("SELECT * FROM instances WHERE host_id = ? AND state <> ? ORDER BY id")
        .bind(host_id)
        .bind(InstanceState::Terminated.code())
        .fetch_all(c)
        .await
}

/// Host and id of all instances that are not terminated.
pub async fn alive_by_host(c: &mut SqliteConnection) -> Result<Vec<(String, String)>> {
    sqlx::query_as("SELECT host_id, id FROM instances WHERE state <> ? ORDER BY host_id, id")
        .bind(InstanceState::Terminated.code())
        .fetch_all(c)
        .await
}

pub async fn of_reservation(c: &mut SqliteConnection, reservation_id: &str) -> Result<Vec<String>> {
    sqlx::query_scalar("SELECT id FROM instances WHERE reservation_id = ? ORDER BY ami_launch_index")
        .bind(reservation_id)
        .fetch_all(c)
        .await
}

/// Instances that count towards the limit.
pub async fn count_alive(c: &mut SqliteConnection) -> Result<i64> {
    sqlx::query_scalar("SELECT count(*) FROM instances WHERE state <> ?")
        .bind(InstanceState::Terminated.code())
        .fetch_one(c)
        .await
}

/// vCPUs and memory of an instance on its host, anew at each start.
pub async fn claim(
    c: &mut SqliteConnection,
    instance_id: &str,
    host_id: &str,
    vcpus: u64,
    memory_mib: u64,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO capacity_claims (instance_id, host_id, vcpus, memory_mib) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (instance_id) DO UPDATE SET vcpus = ?3, memory_mib = ?4",
    )
    .bind(instance_id)
    .bind(host_id)
    .bind(signed(vcpus))
    .bind(signed(memory_mib))
    .execute(c)
    .await?;
    Ok(())
}

/// Sets what becomes of the instance when its host restarts, and lets the host and watchers know.
pub async fn set_auto_recovery(
    tx: &mut WriteTransaction,
    row: &InstanceRow,
    auto_recovery: &str,
) -> Result<()> {
    sqlx::query("UPDATE instances SET auto_recovery = ?2 WHERE id = ?1")
        .bind(&row.id)
        .bind(auto_recovery)
        .execute(tx.connection())
        .await?;
    tx.touch_host(&row.host_id);
    tx.event("instance.modified", &row.id).await
}

/// Writes a change of an instance's life, releases what it no longer holds, and lets its host and watchers know.
/// Taking compute is the caller's part: only it can say how much there is.
pub async fn write_change(tx: &mut WriteTransaction, row: &InstanceRow, change: &Change) -> Result<()> {
    let next = &change.next;
    let before = row.lifecycle();
    let time = now();
    let (code, message, transition) = match &change.reason {
        ReasonChange::Keep => (
            row.reason_code.clone(),
            row.reason_message.clone(),
            row.transition_reason.clone(),
        ),
        ReasonChange::Clear => Default::default(),
        ReasonChange::Set(reason) => {
            let transition = match reason.transition {
                "" => String::new(),
                who => format!("{who} ({})", gmt(time)),
            };
            (reason.code.to_owned(), reason.message.clone(), transition)
        }
    };
    let terminated_at = (next.state == InstanceState::Terminated).then_some(time);
    let launch_time = if change.hold == Hold::TakeCompute {
        time
    } else {
        row.launch_time
    };
    sqlx::query(
        "UPDATE instances SET state = ?2, desired = ?3, run = ?4, reboot = ?5, force = ?6, reason_code = ?7,
             reason_message = ?8, transition_reason = ?9, terminated_at = ?10, launch_time = ?11 WHERE id = ?1",
    )
    .bind(&row.id)
    .bind(next.state.code())
    .bind(i32::from(next.desired))
    .bind(signed(next.run))
    .bind(signed(next.reboot))
    .bind(next.force)
    .bind(code)
    .bind(message)
    .bind(transition)
    .bind(terminated_at)
    .bind(launch_time)
    .execute(tx.connection())
    .await?;
    match change.hold {
        Hold::Keep | Hold::TakeCompute => {}
        Hold::DropCompute => {
            claim(tx.connection(), &row.id, &row.host_id, 0, 0).await?;
            addresses::release_public(tx.connection(), &row.id).await?;
        }
        Hold::DropAll => {
            let groups: Vec<String> = sqlx::query_scalar(
                "SELECT g.group_id FROM network_interface_groups g
                 JOIN network_interfaces n ON n.id = g.network_interface_id WHERE n.instance_id = ?",
            )
            .bind(&row.id)
            .fetch_all(tx.connection())
            .await?;
            security_groups::touch_members(tx, &groups).await?;
            drop_all(tx.connection(), &row.id).await?;
        }
    }
    let same_intent = before.desired == next.desired
        && (before.run, before.reboot, before.force) == (next.run, next.reboot, next.force)
        && change.hold == Hold::Keep;
    if !same_intent {
        tx.touch_host(&row.host_id);
    }
    tx.event(&format!("instance.{}", next.state), &row.id).await
}

/// Nothing of the instance is left on its host but volumes that shall outlive it.
async fn drop_all(c: &mut SqliteConnection, instance_id: &str) -> Result<()> {
    sqlx::query("DELETE FROM capacity_claims WHERE instance_id = ?")
        .bind(instance_id)
        .execute(&mut *c)
        .await?;
    sqlx::query("DELETE FROM network_interfaces WHERE instance_id = ?")
        .bind(instance_id)
        .execute(&mut *c)
        .await?;
    let deleted: Vec<String> = sqlx::query_scalar(
        "DELETE FROM volumes WHERE instance_id = ? AND delete_on_termination RETURNING id",
    )
    .bind(instance_id)
    .fetch_all(&mut *c)
    .await?;
    for volume in &deleted {
        tags::remove_all(c, volume).await?;
    }
    sqlx::query("UPDATE volumes SET instance_id = NULL WHERE instance_id = ?")
        .bind(instance_id)
        .execute(&mut *c)
        .await?;
    Ok(())
}

/// `2026-11-23 10:00:00 GMT`
fn gmt(milliseconds: i64) -> String {
    jiff::Timestamp::from_millisecond(milliseconds)
        .map(|t| t.strftime("%Y-%m-%d %H:%M:%S GMT").to_string())
        .unwrap_or_default()
}

/// What the agent reported last of an instance.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct ObservationRow {
    pub instance_id: String,
    pub phase: i64,
    pub run: i64,
    pub end_cause: i64,
    pub end_message: String,
    pub start_micros: i64,
    pub reboot: i64,
    pub recoveries: i64,
}

/// By instance.
pub async fn observations<S: AsRef<str>>(
    c: &mut SqliteConnection,
    ids: &[S],
) -> Result<HashMap<String, ObservationRow>> {
    let rows: Vec<ObservationRow> = sqlx::query_as(
        "SELECT instance_id, phase, run, end_cause, end_message, start_micros, reboot, recoveries
         FROM instance_observations WHERE instance_id IN (SELECT value FROM json_each(?))",
    )
    .bind(list(ids))
    .fetch_all(c)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.instance_id.clone(), row))
        .collect())
}

pub async fn put_observation(c: &mut SqliteConnection, row: &ObservationRow) -> Result<()> {
    sqlx::query(
        "INSERT INTO instance_observations
             (instance_id, phase, run, end_cause, end_message, start_micros, reboot, recoveries, observed_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (instance_id) DO UPDATE SET phase = ?2, run = ?3, end_cause = ?4, end_message = ?5,
             start_micros = ?6, reboot = ?7, recoveries = ?8, observed_at = ?9",
    )
    .bind(&row.instance_id)
    .bind(row.phase)
    .bind(row.run)
    .bind(row.end_cause)
    .bind(&row.end_message)
    .bind(row.start_micros)
    .bind(row.reboot)
    .bind(row.recoveries)
    .bind(now())
    .execute(c)
    .await?;
    Ok(())
}
