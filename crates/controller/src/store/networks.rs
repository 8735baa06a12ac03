//! VPCs, subnets, network interfaces and volumes as rows.

use sqlx::SqliteConnection;

use super::{Result, now};

#[derive(Debug, Clone, sqlx::FromRow)]
pub struct VpcRow {
    pub id: String,
    pub cidr: String,
    pub is_default: bool,
}

#[derive(Debug, Clone, sqlx::FromRow)]
pub struct SubnetRow {
    pub id: String,
    pub vpc_id: String,
    pub cidr: String,
    pub availability_zone: String,
    pub default_for_az: bool,
    pub map_public_ip_on_launch: bool,
}

#[derive(Debug, Clone, sqlx::FromRow)]
pub struct InterfaceRow {
    pub id: String,
    pub instance_id: String,
    pub vpc_id: String,
    pub subnet_id: String,
    pub mac_address: String,
    pub private_ip: String,
    pub public_ip: Option<String>,
}

#[derive(Debug, Clone, sqlx::FromRow)]
pub struct VolumeRow {
    pub id: String,
    pub instance_id: Option<String>,
    pub host_id: String,
    pub image_id: String,
    pub device_name: String,
    pub size_gib: i64,
    pub delete_on_termination: bool,
}

pub async fn vpcs(c: &mut SqliteConnection) -> Result<Vec<VpcRow>> {
    sqlx::query_as("SELECT * FROM vpcs ORDER BY id")
        .fetch_all(c)
        .await
}

pub async fn default_vpc(c: &mut SqliteConnection) -> Result<VpcRow> {
    sqlx::query_as("SELECT * FROM vpcs WHERE is_default")
        .fetch_one(c)
        .await
}

pub async fn insert_vpc(c: &mut SqliteConnection, row: &VpcRow) -> Result<()> {
    sqlx::query("INSERT INTO vpcs (id, cidr, is_default, created_at) VALUES (?, ?, ?, ?)")
        .bind(&row.id)
        .bind(&row.cidr)
        .bind(row.is_default)
        .bind(now())
        .execute(c)
        .await?;
    Ok(())
}

pub async fn subnets(c: &mut SqliteConnection) -> Result<Vec<SubnetRow>> {
    sqlx::query_as("SELECT * FROM subnets ORDER BY id")
        .fetch_all(c)
        .await
}

pub async fn insert_subnet(c: &mut SqliteConnection, row: &SubnetRow) -> Result<()> {
    sqlx::query(
        "INSERT INTO subnets
             (id, vpc_id, cidr, availability_zone, default_for_az, map_public_ip_on_launch, created_at)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&row.id)
    .bind(&row.vpc_id)
    .bind(&row.cidr)
    .bind(&row.availability_zone)
    .bind(row.default_for_az)
    .bind(row.map_public_ip_on_launch)
    .bind(now())
    .execute(c)
    .await?;
    Ok(())
}

pub async fn insert_interface(c: &mut SqliteConnection, row: &InterfaceRow, groups: &[String]) -> Result<()> {
    sqlx::query(
        "INSERT INTO network_interfaces (id, instance_id, vpc_id, subnet_id, mac_address, private_ip, public_ip)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&row.id)
    .bind(&row.instance_id)
    .bind(&row.vpc_id)
    .bind(&row.subnet_id)
    .bind(&row.mac_address)
    .bind(&row.private_ip)
    .bind(&row.public_ip)
    .execute(&mut *c)
    .await?;
    for group in groups {
        sqlx::query("INSERT INTO network_interface_groups (network_interface_id, group_id) VALUES (?, ?)")
            .bind(&row.id)
            .bind(group)
            .execute(&mut *c)
            .await?;
    }
    Ok(())
}

pub async fn insert_volume(c: &mut SqliteConnection, row: &VolumeRow) -> Result<()> {
    sqlx::query(
        "INSERT INTO volumes
             (id, instance_id, host_id, image_id, device_name, size_gib, delete_on_termination, created_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&row.id)
    .bind(&row.instance_id)
    .bind(&row.host_id)
    .bind(&row.image_id)
    .bind(&row.device_name)
    .bind(row.size_gib)
    .bind(row.delete_on_termination)
    .bind(now())
    .execute(c)
    .await?;
    Ok(())
}
