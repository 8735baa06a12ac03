//! ClientTokens: idempotency of calls.

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
