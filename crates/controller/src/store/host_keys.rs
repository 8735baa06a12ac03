//! Which public keys are accepted as whose: a certificate that the authority signed is good only while its key stands
//! here. A host has one key, and two between a renewal and the first session with the new one.

use sqlx::SqliteConnection;

use super::{Result, now};

/// Whether a certificate of the authority is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    Admitted,
    /// No host has this id.
    Unknown,
    Forgotten,
    /// The host has another key by now.
    Replaced,
}

/// Whether the holder of `key_hash`, whose certificate names `host_id`, is admitted. A host without any key enrolled
/// before keys were recorded: its only certificate is good.
pub async fn admission(c: &mut SqliteConnection, host_id: &str, key_hash: &str) -> Result<Admission> {
    let row: Option<(bool, i64, bool)> = sqlx::query_as(
        "SELECT h.forgotten_at IS NOT NULL, (SELECT count(*) FROM host_keys WHERE host_id = h.id),
             EXISTS (SELECT 1 FROM host_keys WHERE host_id = h.id AND public_key_hash = ?2)
         FROM hosts h WHERE h.id = ?1",
    )
    .bind(host_id)
    .bind(key_hash)
    .fetch_optional(c)
    .await?;
    Ok(match row {
        None => Admission::Unknown,
        Some((true, _, _)) => Admission::Forgotten,
        Some((_, 0, _) | (_, _, true)) => Admission::Admitted,
        Some(_) => Admission::Replaced,
    })
}

/// The host whose key this is, and the join token that admitted it.
pub async fn owner(c: &mut SqliteConnection, key_hash: &str) -> Result<Option<(String, Option<String>)>> {
    sqlx::query_as("SELECT host_id, token_id FROM host_keys WHERE public_key_hash = ?")
        .bind(key_hash)
        .fetch_optional(c)
        .await
}

/// Accepts a key that no host has yet.
pub async fn record(
    c: &mut SqliteConnection,
    host_id: &str,
    key_hash: &str,
    token_id: Option<&str>,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO host_keys (public_key_hash, host_id, token_id, number, recorded_at)
         VALUES (?1, ?2, ?3, (SELECT ifnull(max(number), 0) + 1 FROM host_keys WHERE host_id = ?2), ?4)",
    )
    .bind(key_hash)
    .bind(host_id)
    .bind(token_id)
    .bind(now())
    .execute(c)
    .await?;
    Ok(())
}

/// Ends all keys of a host but one.
pub async fn retain(c: &mut SqliteConnection, host_id: &str, key_hash: &str) -> Result<()> {
    sqlx::query("DELETE FROM host_keys WHERE host_id = ? AND public_key_hash <> ?")
        .bind(host_id)
        .bind(key_hash)
        .execute(c)
        .await?;
    Ok(())
}

/// Ends all keys of a host.
pub async fn remove_all(c: &mut SqliteConnection, host_id: &str) -> Result<()> {
    sqlx::query("DELETE FROM host_keys WHERE host_id = ?")
        .bind(host_id)
        .execute(c)
        .await?;
    Ok(())
}

/// The host uses this key: older ones end. A newer one stays: its certificate may still be on the way. The key of a host
/// that had none becomes its first.
pub async fn used(c: &mut SqliteConnection, host_id: &str, key_hash: &str) -> Result<()> {
    let number: Option<i64> =
        sqlx::query_scalar("SELECT number FROM host_keys WHERE host_id = ? AND public_key_hash = ?")
            .bind(host_id)
            .bind(key_hash)
            .fetch_optional(&mut *c)
            .await?;
    let Some(number) = number else {
        return record(c, host_id, key_hash, None).await;
    };
    sqlx::query("DELETE FROM host_keys WHERE host_id = ? AND number < ?")
        .bind(host_id)
        .bind(number)
        .execute(c)
        .await?;
    Ok(())
}
