//! Tokens: idempotency of calls, and joining of hosts.

use sqlx::SqliteConnection;

use super::{Result, now};

/// What a call with a ClientToken did before.
#[derive(Debug, sqlx::FromRow)]
pub struct Remembered {
    pub parameters_hash: String,
    pub resource_id: String,
}

pub async fn recall(c: &mut SqliteConnection, action: &str, token: &str) -> Result<Option<Remembered>> {
    sqlx::query_as("SELECT parameters_hash, resource_id FROM client_tokens WHERE token = ? AND action = ?")
        .bind(token)
        .bind(action)
        .fetch_optional(c)
        .await
}

pub async fn remember(
    c: &mut SqliteConnection,
    action: &str,
    token: &str,
    parameters_hash: &str,
    resource_id: &str,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO client_tokens (token, action, parameters_hash, resource_id, created_at) VALUES (?, ?, ?, ?, ?)",
    )
    .bind(token)
    .bind(action)
    .bind(parameters_hash)
    .bind(resource_id)
    .bind(now())
    .execute(c)
    .await?;
    Ok(())
}

/// Keeps the hash of a join token's secret.
pub async fn add_join_secret(c: &mut SqliteConnection, secret: &str) -> Result<()> {
    sqlx::query("INSERT INTO join_tokens (secret_hash, created_at) VALUES (?, ?)")
        .bind(join_hash(secret))
        .bind(now())
        .execute(c)
        .await?;
    Ok(())
}

/// Whether hosts may join with this secret. Comparing hashes of 256 random bits needs no constant time.
pub async fn admits(c: &mut SqliteConnection, secret: &str) -> Result<bool> {
    let known: Option<i64> =
        sqlx::query_scalar("SELECT 1 FROM join_tokens WHERE secret_hash = ? AND revoked_at IS NULL")
            .bind(join_hash(secret))
            .fetch_optional(c)
            .await?;
    Ok(known.is_some())
}

/// No host joins with any token that was made before.
pub async fn revoke_join_secrets(c: &mut SqliteConnection) -> Result<u64> {
    let done = sqlx::query("UPDATE join_tokens SET revoked_at = ? WHERE revoked_at IS NULL")
        .bind(now())
        .execute(c)
        .await?;
    Ok(done.rows_affected())
}

fn join_hash(secret: &str) -> String {
    blake3::hash(secret.as_bytes()).to_hex().to_string()
}
