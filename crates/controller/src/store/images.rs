//! AMIs. The disk of `ami-X` is `<data-dir>/images/ami-X.raw`.

use sqlx::SqliteConnection;

use super::Result;

#[derive(Debug, Clone, sqlx::FromRow)]
pub struct ImageRow {
    pub id: String,
    pub name: String,
    pub description: String,
    pub state: String,
    pub size: i64,
    pub digest: String,
    pub kernel_path: String,
    pub created_at: i64,
}

pub const AVAILABLE: &str = "available";
pub const DEREGISTERED: &str = "deregistered";

pub async fn insert(c: &mut SqliteConnection, row: &ImageRow) -> Result<()> {
    sqlx::query(
        "INSERT INTO images (id, name, description, state, size, digest, kernel_path, created_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&row.id)
    .bind(&row.name)
    .bind(&row.description)
    .bind(&row.state)
    .bind(row.size)
    .bind(&row.digest)
    .bind(&row.kernel_path)
    .bind(row.created_at)
    .execute(c)
    .await?;
    Ok(())
}

/// In any state.
pub async fn by_id(c: &mut SqliteConnection, id: &str) -> Result<Option<ImageRow>> {
    sqlx::query_as("SELECT * FROM images WHERE id = ?")
        .bind(id)
        .fetch_optional(c)
        .await
}

pub async fn name_taken(c: &mut SqliteConnection, name: &str) -> Result<Option<String>> {
    sqlx::query_scalar("SELECT id FROM images WHERE name = ? AND state = ?")
        .bind(name)
        .bind(AVAILABLE)
        .fetch_optional(c)
        .await
}

pub async fn available(c: &mut SqliteConnection) -> Result<Vec<ImageRow>> {
    sqlx::query_as("SELECT * FROM images WHERE state = ? ORDER BY id")
        .bind(AVAILABLE)
        .fetch_all(c)
        .await
}

pub async fn ids(c: &mut SqliteConnection) -> Result<Vec<String>> {
    sqlx::query_scalar("SELECT id FROM images").fetch_all(c).await
}

pub async fn deregister(c: &mut SqliteConnection, id: &str) -> Result<()> {
    sqlx::query("UPDATE images SET state = ? WHERE id = ?")
        .bind(DEREGISTERED)
        .bind(id)
        .execute(c)
        .await?;
    Ok(())
}

/// Forgets deregistered images that no volume is based on; their files may go.
pub async fn forget_unused(c: &mut SqliteConnection) -> Result<Vec<String>> {
    sqlx::query_scalar(
        "DELETE FROM images WHERE state = ? AND id NOT IN (SELECT image_id FROM volumes) RETURNING id",
    )
    .bind(DEREGISTERED)
    .fetch_all(c)
    .await
}
