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
    /// Empty with the boot mode `uefi`.
    pub kernel_path: String,
    /// In EC2's words ([`hearth_image::BootMode`]).
    pub boot_mode: String,
    pub created_at: i64,
}

pub const AVAILABLE: &str = "available";
pub const DEREGISTERED: &str = "deregistered";

pub async fn insert(c: &mut SqliteConnection, row: &ImageRow) -> Result<()> {
    sqlx::query(
        "INSERT INTO images (id, name, description, state, size, digest, kernel_path, boot_mode, created_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&row.id)
    .bind(&row.name)
    .bind(&row.description)
    .bind(&row.state)
    .bind(row.size)
    .bind(&row.digest)
    .bind(&row.kernel_path)
    .bind(&row.boot_mode)
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

/// The boot mode of an image in any state.
pub async fn boot_mode(c: &mut SqliteConnection, id: &str) -> Result<Option<String>> {
    sqlx::query_scalar("SELECT boot_mode FROM images WHERE id = ?")
        .bind(id)
        .fetch_optional(c)
        .await
}

/// Whether an instance that the host has to look after is made from the image, in whatever state either is.
pub async fn is_needed_by(c: &mut SqliteConnection, id: &str, host_id: &str) -> Result<bool> {
    let needed: i64 = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM capacity_claims c JOIN volumes v ON v.instance_id = c.instance_id
                        WHERE c.host_id = ? AND v.image_id = ?)",
    )
    .bind(host_id)
    .bind(id)
    .fetch_one(c)
    .await?;
    Ok(needed != 0)
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

/// How many there are in any state, and the bytes of their disks: a disk is there until the last of its volumes is gone.
pub async fn totals(c: &mut SqliteConnection) -> Result<(i64, i64)> {
    sqlx::query_as("SELECT count(*), coalesce(sum(size), 0) FROM images")
        .fetch_one(c)
        .await
}

/// Ids and sizes of the images whose digest is still to be computed.
pub async fn without_digest(c: &mut SqliteConnection) -> Result<Vec<(String, i64)>> {
    sqlx::query_as("SELECT id, size FROM images WHERE digest = '' ORDER BY id")
        .fetch_all(c)
        .await
}

/// Also gives the hosts that use the image a new generation of intents, for these carry the digest.
pub async fn set_digest(c: &mut SqliteConnection, id: &str, digest: &str) -> Result<()> {
    sqlx::query("UPDATE images SET digest = ? WHERE id = ?")
        .bind(digest)
        .bind(id)
        .execute(&mut *c)
        .await?;
    sqlx::query(
        "UPDATE hosts SET generation = generation + 1 WHERE id IN (SELECT host_id FROM volumes WHERE image_id = ?)",
    )
    .bind(id)
    .execute(c)
    .await?;
    Ok(())
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
