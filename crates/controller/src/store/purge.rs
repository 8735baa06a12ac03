//! Forgetting what EC2 forgets: terminated instances after about an hour, and old history.

use hearth_api::InstanceState;

use super::{Result, WriteTransaction, list, now};

/// Events are a feed, not an archive.
const KEEP_EVENTS_MS: i64 = 24 * 3600 * 1000;
const KEEP_AUDIT_MS: i64 = 90 * 24 * 3600 * 1000;

/// Removes instances that were terminated `visible_ms` ago, with all rows of theirs. Answers how many.
pub async fn terminated(tx: &mut WriteTransaction, visible_ms: i64) -> Result<usize> {
    let ids: Vec<String> =
        sqlx::query_scalar("SELECT id FROM instances WHERE state = ? AND terminated_at <= ?")
            .bind(InstanceState::Terminated.code())
            .bind(now() - visible_ms)
            .fetch_all(tx.connection())
            .await?;
    if ids.is_empty() {
        return Ok(0);
    }
    let gone = list(&ids);
    for statement in [
        "DELETE FROM instance_observations WHERE instance_id IN (SELECT value FROM json_each(?))",
        "DELETE FROM tags WHERE resource_id IN (SELECT value FROM json_each(?))",
        "DELETE FROM instances WHERE id IN (SELECT value FROM json_each(?))",
    ] {
        sqlx::query(statement)
            .bind(&gone)
            .execute(tx.connection())
            .await?;
    }
    sqlx::query(
        "DELETE FROM client_tokens WHERE action = 'RunInstances'
         AND resource_id NOT IN (SELECT reservation_id FROM instances)",
    )
    .execute(tx.connection())
    .await?;
    sqlx::query("DELETE FROM reservations WHERE id NOT IN (SELECT reservation_id FROM instances)")
        .execute(tx.connection())
        .await?;
    Ok(ids.len())
}

pub async fn history(tx: &mut WriteTransaction) -> Result<u64> {
    let events = sqlx::query("DELETE FROM events WHERE at < ?")
        .bind(now() - KEEP_EVENTS_MS)
        .execute(tx.connection())
        .await?;
    let audit = sqlx::query("DELETE FROM audit WHERE at < ?")
        .bind(now() - KEEP_AUDIT_MS)
        .execute(tx.connection())
        .await?;
    Ok(events.rows_affected() + audit.rows_affected())
}

/// Whether anything is to be done, without taking the right to write.
pub async fn is_due(c: &mut sqlx::SqliteConnection, visible_ms: i64) -> Result<bool> {
    let due: i64 = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM instances WHERE state = ?1 AND terminated_at <= ?2)
             OR EXISTS (SELECT 1 FROM events WHERE at < ?3) OR EXISTS (SELECT 1 FROM audit WHERE at < ?4)
             OR EXISTS (SELECT 1 FROM images WHERE state = 'deregistered'
                        AND id NOT IN (SELECT image_id FROM volumes))",
    )
    .bind(InstanceState::Terminated.code())
    .bind(now() - visible_ms)
    .bind(now() - KEEP_EVENTS_MS)
    .bind(now() - KEEP_AUDIT_MS)
    .fetch_one(c)
    .await?;
    Ok(due != 0)
}
