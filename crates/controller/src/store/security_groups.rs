//! Security groups, their rules, and which hosts must hear of a change.

use sqlx::SqliteConnection;

use super::{Result, WriteTransaction, list, now};

#[derive(Debug, Clone, sqlx::FromRow)]
pub struct GroupRow {
    pub id: String,
    pub vpc_id: String,
    pub name: String,
    pub description: String,
}

#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct RuleRow {
    pub id: String,
    pub group_id: String,
    pub is_egress: bool,
    pub protocol: i64,
    pub from_port: i64,
    pub to_port: i64,
    /// Empty when `referenced_group_id` is the peer.
    pub cidr: String,
    pub referenced_group_id: Option<String>,
    pub description: String,
}

pub async fn insert(c: &mut SqliteConnection, row: &GroupRow) -> Result<()> {
    sqlx::query(
        "INSERT INTO security_groups (id, vpc_id, name, description, created_at) VALUES (?, ?, ?, ?, ?)",
    )
    .bind(&row.id)
    .bind(&row.vpc_id)
    .bind(&row.name)
    .bind(&row.description)
    .bind(now())
    .execute(c)
    .await?;
    Ok(())
}

pub async fn all(c: &mut SqliteConnection) -> Result<Vec<GroupRow>> {
    sqlx::query_as("SELECT id, vpc_id, name, description FROM security_groups ORDER BY id")
        .fetch_all(c)
        .await
}

pub async fn by_id(c: &mut SqliteConnection, id: &str) -> Result<Option<GroupRow>> {
    sqlx::query_as("SELECT id, vpc_id, name, description FROM security_groups WHERE id = ?")
        .bind(id)
        .fetch_optional(c)
        .await
}

/// Upper and lower case and trailing spaces make no difference. Of several, which older databases may have, the one
/// with exactly this name.
pub async fn by_name(c: &mut SqliteConnection, vpc_id: &str, name: &str) -> Result<Option<GroupRow>> {
    sqlx::query_as(
        "SELECT id, vpc_id, name, description FROM security_groups
         WHERE vpc_id = ?1 AND rtrim(name) = rtrim(?2) COLLATE NOCASE ORDER BY name = ?2 DESC, id LIMIT 1",
    )
    .bind(vpc_id)
    .bind(name)
    .fetch_optional(c)
    .await
}

/// With its rules, but only when nothing refers to it any more.
pub async fn delete(c: &mut SqliteConnection, id: &str) -> Result<()> {
    sqlx::query("DELETE FROM security_group_rules WHERE group_id = ?")
        .bind(id)
        .execute(&mut *c)
        .await?;
    sqlx::query("DELETE FROM security_groups WHERE id = ?")
        .bind(id)
        .execute(&mut *c)
        .await?;
    Ok(())
}

/// What uses a group: interfaces, and other groups' rules.
pub async fn users(c: &mut SqliteConnection, id: &str) -> Result<Vec<String>> {
    sqlx::query_scalar(
        "SELECT network_interface_id FROM network_interface_groups WHERE group_id = ?1
         UNION SELECT group_id FROM security_group_rules WHERE referenced_group_id = ?1 AND group_id <> ?1",
    )
    .bind(id)
    .fetch_all(c)
    .await
}

const RULE: &str = "SELECT id, group_id, is_egress, protocol, from_port, to_port, cidr, referenced_group_id,
    description FROM security_group_rules ORDER BY created_at, id";

pub async fn rules(c: &mut SqliteConnection) -> Result<Vec<RuleRow>> {
    sqlx::query_as(RULE).fetch_all(c).await
}

pub async fn rules_of(c: &mut SqliteConnection, groups: &[String]) -> Result<Vec<RuleRow>> {
    sqlx::query_as(
        "SELECT id, group_id, is_egress, protocol, from_port, to_port, cidr, referenced_group_id, description
         FROM security_group_rules WHERE group_id IN (SELECT value FROM json_each(?)) ORDER BY created_at, id",
    )
    .bind(list(groups))
    .fetch_all(c)
    .await
}

pub async fn insert_rule(c: &mut SqliteConnection, row: &RuleRow) -> Result<()> {
    sqlx::query(
        "INSERT INTO security_group_rules (id, group_id, is_egress, protocol, from_port, to_port, cidr,
             referenced_group_id, description, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&row.id)
    .bind(&row.group_id)
    .bind(row.is_egress)
    .bind(row.protocol)
    .bind(row.from_port)
    .bind(row.to_port)
    .bind(&row.cidr)
    .bind(&row.referenced_group_id)
    .bind(&row.description)
    .bind(now())
    .execute(c)
    .await?;
    Ok(())
}

pub async fn delete_rule(c: &mut SqliteConnection, id: &str) -> Result<()> {
    sqlx::query("DELETE FROM security_group_rules WHERE id = ?")
        .bind(id)
        .execute(c)
        .await?;
    Ok(())
}

/// The rules of a group changed: every host with a member hears of it.
pub async fn touch_rules(tx: &mut WriteTransaction, group_id: &str) -> Result<()> {
    let hosts: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT i.host_id FROM network_interface_groups g
         JOIN network_interfaces n ON n.id = g.network_interface_id JOIN instances i ON i.id = n.instance_id
         WHERE g.group_id = ?",
    )
    .bind(group_id)
    .fetch_all(tx.connection())
    .await?;
    hosts.iter().for_each(|host| tx.touch_host(host));
    Ok(())
}

/// The members of some groups changed: every host with a member of a group whose rules name one of them hears of it.
pub async fn touch_members(tx: &mut WriteTransaction, groups: &[String]) -> Result<()> {
    let hosts: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT i.host_id FROM security_group_rules r
         JOIN network_interface_groups g ON g.group_id = r.group_id
         JOIN network_interfaces n ON n.id = g.network_interface_id JOIN instances i ON i.id = n.instance_id
         WHERE r.referenced_group_id IN (SELECT value FROM json_each(?))",
    )
    .bind(list(groups))
    .fetch_all(tx.connection())
    .await?;
    hosts.iter().for_each(|host| tx.touch_host(host));
    Ok(())
}
