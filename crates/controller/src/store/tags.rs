//! Tags of all resources.

use std::collections::HashMap;

use hearth_api::v1::Tag;
use sqlx::SqliteConnection;

use super::{Result, list};

#[derive(Debug, sqlx::FromRow)]
pub struct TagRow {
    pub resource_id: String,
    pub resource_type: String,
    pub key: String,
    pub value: String,
}

/// Adds or overwrites.
pub async fn put(
    c: &mut SqliteConnection,
    resource_id: &str,
    resource_type: &str,
    tags: &[Tag],
) -> Result<()> {
    for tag in tags {
        sqlx::query(
            "INSERT INTO tags (resource_id, resource_type, key, value) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (resource_id, key) DO UPDATE SET value = ?4",
        )
        .bind(resource_id)
        .bind(resource_type)
        .bind(&tag.key)
        .bind(&tag.value)
        .execute(&mut *c)
        .await?;
    }
    Ok(())
}

/// Removes a key; with a value, only where the tag has that value.
pub async fn remove(
    c: &mut SqliteConnection,
    resource_id: &str,
    key: &str,
    value: Option<&str>,
) -> Result<()> {
    sqlx::query("DELETE FROM tags WHERE resource_id = ?1 AND key = ?2 AND (?3 IS NULL OR value = ?3)")
        .bind(resource_id)
        .bind(key)
        .bind(value)
        .execute(c)
        .await?;
    Ok(())
}

pub async fn remove_all(c: &mut SqliteConnection, resource_id: &str) -> Result<()> {
    sqlx::query("DELETE FROM tags WHERE resource_id = ?")
        .bind(resource_id)
        .execute(c)
        .await?;
    Ok(())
}

pub async fn count(c: &mut SqliteConnection, resource_id: &str) -> Result<i64> {
    sqlx::query_scalar("SELECT count(*) FROM tags WHERE resource_id = ?")
        .bind(resource_id)
        .fetch_one(c)
        .await
}

pub async fn all(c: &mut SqliteConnection) -> Result<Vec<TagRow>> {
    sqlx::query_as("SELECT * FROM tags ORDER BY resource_id, key")
        .fetch_all(c)
        .await
}

/// The tags of all resources of a type, or of some of them, by resource.
pub async fn of_type(
    c: &mut SqliteConnection,
    resource_type: &str,
    ids: Option<&[String]>,
) -> Result<HashMap<String, Vec<Tag>>> {
    let rows: Vec<TagRow> = match ids {
        None => {
            sqlx::query_as("SELECT * FROM tags WHERE resource_type = ? ORDER BY resource_id, key")
                .bind(resource_type)
                .fetch_all(c)
                .await?
        }
        Some(ids) => sqlx::query_as(
            "SELECT * FROM tags WHERE resource_type = ? AND resource_id IN (SELECT value FROM json_each(?))
                 ORDER BY resource_id, key",
        )
        .bind(resource_type)
        .bind(list(ids))
        .fetch_all(c)
        .await?,
    };
    let mut by_resource: HashMap<String, Vec<Tag>> = HashMap::new();
    for row in rows {
        by_resource.entry(row.resource_id).or_default().push(Tag {
            key: row.key,
            value: row.value,
        });
    }
    Ok(by_resource)
}
