//! Key pairs: public halves only.

use sqlx::SqliteConnection;

use super::Result;

#[derive(Debug, Clone, sqlx::FromRow)]
pub struct KeyPairRow {
    pub id: String,
    pub name: String,
    pub key_type: String,
    pub fingerprint: String,
    pub public_key: String,
    pub created_at: i64,
}

pub async fn insert(c: &mut SqliteConnection, row: &KeyPairRow) -> Result<()> {
    sqlx::query(
        "INSERT INTO key_pairs (id, name, key_type, fingerprint, public_key, created_at) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(&row.id)
    .bind(&row.name)
    .bind(&row.key_type)
    .bind(&row.fingerprint)
    .bind(&row.public_key)
    .bind(row.created_at)
    .execute(c)
    .await?;
    Ok(())
}

pub async fn by_name(c: &mut SqliteConnection, name: &str) -> Result<Option<KeyPairRow>> {
    sqlx::query_as("SELECT * FROM key_pairs WHERE name = ?")
        .bind(name)
        .fetch_optional(c)
        .await
}

pub async fn by_id(c: &mut SqliteConnection, id: &str) -> Result<Option<KeyPairRow>> {
    sqlx::query_as("SELECT * FROM key_pairs WHERE id = ?")
        .bind(id)
        .fetch_optional(c)
        .await
}

pub async fn all(c: &mut SqliteConnection) -> Result<Vec<KeyPairRow>> {
    sqlx::query_as("SELECT * FROM key_pairs ORDER BY name")
        .fetch_all(c)
        .await
}

pub async fn delete(c: &mut SqliteConnection, id: &str) -> Result<()> {
    sqlx::query("DELETE FROM key_pairs WHERE id = ?")
        .bind(id)
        .execute(c)
        .await?;
    Ok(())
}
