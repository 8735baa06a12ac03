//! Join tokens: whose secrets admit hosts, until when and how often.

use sqlx::SqliteConnection;

use super::{Result, now};

/// Expired tokens are kept for a while, so that whoever tries one is told that it expired.
const KEEP_EXPIRED_MS: i64 = 24 * 3600 * 1000;

#[derive(Debug, Clone, sqlx::FromRow)]
pub struct JoinTokenRow {
    pub id: String,
    /// The host that joins again with it; `None`: each use makes a new host.
    pub host_id: Option<String>,
    pub uses: i64,
    pub uses_left: i64,
    pub created_at: i64,
    pub expires_at: i64,
}

impl JoinTokenRow {
    pub fn is_expired(&self) -> bool {
        self.expires_at <= now()
    }
}

/// Keeps a token with the hash of its secret, and drops tokens that expired long ago.
pub async fn insert(c: &mut SqliteConnection, row: &JoinTokenRow, secret: &str) -> Result<()> {
    sqlx::query("DELETE FROM join_tokens WHERE expires_at < ?")
        .bind(now() - KEEP_EXPIRED_MS)
        .execute(&mut *c)
        .await?;
    sqlx::query(
        "INSERT INTO join_tokens (id, secret_hash, host_id, uses, uses_left, created_at, expires_at)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&row.id)
    .bind(blake3::hash(secret.as_bytes()).to_hex().as_str())
    .bind(&row.host_id)
    .bind(row.uses)
    .bind(row.uses_left)
    .bind(row.created_at)
    .bind(row.expires_at)
    .execute(c)
    .await?;
    Ok(())
}

/// The token with this secret, whether it is still good or not. The time that this takes depends on the number of tokens
/// alone: all hashes are compared, each in constant time (which is what `==` of [`blake3::Hash`] does).
pub async fn find(c: &mut SqliteConnection, secret: &str) -> Result<Option<JoinTokenRow>> {
    let hashes: Vec<(String, String)> = sqlx::query_as("SELECT id, secret_hash FROM join_tokens")
        .fetch_all(&mut *c)
        .await?;
    let offered = blake3::hash(secret.as_bytes());
    let mut found = None;
    for (id, hash) in hashes {
        if blake3::Hash::from_hex(&hash).is_ok_and(|hash| hash == offered) {
            found = Some(id);
        }
    }
    let Some(id) = found else { return Ok(None) };
    sqlx::query_as("SELECT * FROM join_tokens WHERE id = ?")
        .bind(id)
        .fetch_optional(c)
        .await
}

/// Takes one use of a token; `false` when none is left. Within the transaction that enrols, so that two hosts cannot
/// have the last one.
pub async fn take_use(c: &mut SqliteConnection, id: &str) -> Result<bool> {
    let done = sqlx::query("UPDATE join_tokens SET uses_left = uses_left - 1 WHERE id = ? AND uses_left > 0")
        .bind(id)
        .execute(c)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Tokens that still admit hosts, the oldest first.
pub async fn usable(c: &mut SqliteConnection) -> Result<Vec<JoinTokenRow>> {
    sqlx::query_as("SELECT * FROM join_tokens WHERE uses_left > 0 AND expires_at > ? ORDER BY created_at, id")
        .bind(now())
        .fetch_all(c)
        .await
}

/// Answers whether there was such a token.
pub async fn revoke(c: &mut SqliteConnection, id: &str) -> Result<bool> {
    let done = sqlx::query("DELETE FROM join_tokens WHERE id = ?")
        .bind(id)
        .execute(c)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Revokes all tokens. Answers how many still admitted hosts.
pub async fn revoke_all(c: &mut SqliteConnection) -> Result<usize> {
    let usable = usable(&mut *c).await?;
    sqlx::query("DELETE FROM join_tokens").execute(c).await?;
    Ok(usable.len())
}
