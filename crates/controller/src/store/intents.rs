//! What a host should make so: all that is its own at a generation, read in one snapshot.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use hearth_api::agent::{
    InstanceIntent, InstanceMetadata, Intents, NetworkInterface, RootVolume, Rule, SecurityGroupIntent,
    VpcIntent, instance_intent, rule,
};
use hearth_image::BootMode;
use ipnet::Ipv4Net;
use sqlx::SqliteConnection;

use super::hosts::unsigned;
use super::instances::{AUTO_RECOVERY_DISABLED, InstanceRow, METADATA_TAGS_ENABLED};
use super::networks::{InterfaceRow, SubnetRow, VolumeRow, VpcRow};
use super::security_groups::{self, RuleRow};
use super::{Result, list, tags, views};
use crate::catalog::instance_types;

/// What does not stand in rows.
#[derive(Debug, Clone)]
pub struct Surroundings {
    pub cloud: views::Cloud,
    pub public_pool: Ipv4Net,
}

/// All intents of a host; `None` for a host that is unknown or forgotten.
pub async fn of_host(
    c: &mut SqliteConnection,
    host_id: &str,
    surroundings: &Surroundings,
) -> Result<Option<Intents>> {
    let generation: Option<i64> =
        sqlx::query_scalar("SELECT generation FROM hosts WHERE id = ? AND forgotten_at IS NULL")
            .bind(host_id)
            .fetch_optional(&mut *c)
            .await?;
    let Some(generation) = generation else {
        return Ok(None);
    };
    let rows: Vec<InstanceRow> = sqlx::query_as(
        "SELECT i.* FROM instances i JOIN capacity_claims c ON c.instance_id = i.id WHERE c.host_id = ? ORDER BY i.id",
    )
    .bind(host_id)
    .fetch_all(&mut *c)
    .await?;
    let ids: Vec<String> = rows.iter().map(|row| row.id.clone()).collect();
    let parts = Parts::load(c, &ids).await?;
    let vpcs = parts.vpcs(c, surroundings).await?;
    Ok(Some(Intents {
        generation: unsigned(generation),
        instances: rows
            .into_iter()
            .filter_map(|row| parts.instance(row, surroundings))
            .collect(),
        vpcs,
    }))
}

/// What belongs to the host's instances.
struct Parts {
    interfaces: HashMap<String, InterfaceRow>,
    subnets: HashMap<String, SubnetRow>,
    /// By instance.
    volumes: HashMap<String, (VolumeRow, Base)>,
    /// Group ids and names by interface.
    groups: HashMap<String, Vec<(String, String)>>,
    tags: HashMap<String, Vec<hearth_api::v1::Tag>>,
}

/// What an intent says about the image of a volume.
#[derive(Debug, Clone, sqlx::FromRow)]
struct Base {
    id: String,
    /// Bytes.
    size: i64,
    digest: String,
    boot_mode: String,
}

impl Parts {
    async fn load(c: &mut SqliteConnection, instances: &[String]) -> Result<Self> {
        let wanted = list(instances);
        let interfaces: Vec<InterfaceRow> = sqlx::query_as(
            "SELECT * FROM network_interfaces WHERE instance_id IN (SELECT value FROM json_each(?))",
        )
        .bind(&wanted)
        .fetch_all(&mut *c)
        .await?;
        let volume_rows: Vec<VolumeRow> =
            sqlx::query_as("SELECT * FROM volumes WHERE instance_id IN (SELECT value FROM json_each(?))")
                .bind(&wanted)
                .fetch_all(&mut *c)
                .await?;
        let images: Vec<Base> = sqlx::query_as("SELECT id, size, digest, boot_mode FROM images")
            .fetch_all(&mut *c)
            .await?;
        let images: HashMap<_, _> = images
            .into_iter()
            .map(|image| (image.id.clone(), image))
            .collect();
        let members: Vec<(String, String, String)> = sqlx::query_as(
            "SELECT g.network_interface_id, s.id, s.name FROM network_interface_groups g
             JOIN security_groups s ON s.id = g.group_id
             JOIN network_interfaces n ON n.id = g.network_interface_id
             WHERE n.instance_id IN (SELECT value FROM json_each(?)) ORDER BY s.id",
        )
        .bind(&wanted)
        .fetch_all(&mut *c)
        .await?;
        let mut groups: HashMap<String, Vec<(String, String)>> = HashMap::new();
        for (interface, id, name) in members {
            groups.entry(interface).or_default().push((id, name));
        }
        let volumes = volume_rows.into_iter().filter_map(|volume| {
            let image = images.get(&volume.image_id)?.clone();
            Some((volume.instance_id.clone()?, (volume, image)))
        });
        let subnets = super::networks::subnets(c).await?;
        Ok(Self {
            volumes: volumes.collect(),
            interfaces: interfaces
                .into_iter()
                .map(|i| (i.instance_id.clone(), i))
                .collect(),
            subnets: subnets.into_iter().map(|s| (s.id.clone(), s)).collect(),
            groups,
            tags: tags::of_type(c, "instance", Some(instances)).await?,
        })
    }

    /// The schema makes an instance, its interface and its volume in one transaction, so that all are there.
    fn instance(&self, row: InstanceRow, surroundings: &Surroundings) -> Option<InstanceIntent> {
        let interface = self.interfaces.get(&row.id)?;
        let subnet = self.subnets.get(&interface.subnet_id)?;
        let (volume, image) = self.volumes.get(&row.id)?;
        let kind = instance_types::find(&row.instance_type)?;
        let lifecycle = row.lifecycle();
        let empty = Vec::new();
        let groups = self.groups.get(&interface.id).unwrap_or(&empty);
        let tags = self
            .tags
            .get(&row.id)
            .filter(|_| row.metadata_tags == METADATA_TAGS_ENABLED);
        Some(InstanceIntent {
            desired: lifecycle.desired.into(),
            run: lifecycle.run,
            reboot: lifecycle.reboot,
            force: lifecycle.force,
            auto_recovery_disabled: row.auto_recovery == AUTO_RECOVERY_DISABLED,
            boot_mode: boot_mode(&image.boot_mode).into(),
            vcpus: kind.vcpus,
            memory_mib: kind.memory_mib,
            root_volume: Some(RootVolume {
                volume_id: volume.id.clone(),
                size_bytes: unsigned(volume.size_gib) << 30,
                image_id: volume.image_id.clone(),
                image_size_bytes: unsigned(image.size),
                image_digest: image.digest.clone(),
                delete_on_termination: volume.delete_on_termination,
            }),
            network_interface: Some(NetworkInterface {
                network_interface_id: interface.id.clone(),
                vpc_id: interface.vpc_id.clone(),
                subnet_id: interface.subnet_id.clone(),
                subnet_cidr: subnet.cidr.clone(),
                mac_address: interface.mac_address.clone(),
                private_ip: interface.private_ip.clone(),
                public_ip: interface.public_ip.clone().unwrap_or_default(),
                security_group_ids: groups.iter().map(|(id, _)| id.clone()).collect(),
            }),
            metadata: Some(InstanceMetadata {
                image_id: row.image_id,
                instance_type: row.instance_type,
                availability_zone: row.availability_zone,
                region: surroundings.cloud.region.clone(),
                reservation_id: row.reservation_id,
                owner_id: surroundings.cloud.owner_id.clone(),
                ami_launch_index: u32::try_from(row.ami_launch_index).unwrap_or(0),
                local_hostname: views::private_dns_name(&interface.private_ip, &surroundings.cloud.region),
                key_name: row.key_name,
                public_key: row.public_key,
                user_data: row.user_data,
                security_group_names: groups.iter().map(|(_, name)| name.clone()).collect(),
                http_tokens_required: row.http_tokens == "required",
                http_endpoint_enabled: row.http_endpoint == "enabled",
                http_put_response_hop_limit: u32::try_from(row.http_hop_limit).unwrap_or(1),
                launch_time: row.launch_time.div_euclid(1000),
                tags: tags
                    .into_iter()
                    .flatten()
                    .map(|t| (t.key.clone(), t.value.clone()))
                    .collect(),
            }),
            instance_id: row.id,
        })
    }

    /// The VPCs that the host's interfaces are in, with the groups of those interfaces in full. A group that is only
    /// named by one of their rules comes with its members alone: nothing here is filtered by its rules.
    async fn vpcs(&self, c: &mut SqliteConnection, surroundings: &Surroundings) -> Result<Vec<VpcIntent>> {
        let own: BTreeSet<String> = self.groups.values().flatten().map(|(id, _)| id.clone()).collect();
        let own: Vec<String> = own.into_iter().collect();
        let rules = security_groups::rules_of(c, &own).await?;
        let mut groups: BTreeMap<String, SecurityGroupIntent> = BTreeMap::new();
        let referenced = rules.iter().filter_map(|rule| rule.referenced_group_id.clone());
        for id in own.iter().cloned().chain(referenced) {
            groups.entry(id.clone()).or_insert_with(|| SecurityGroupIntent {
                group_id: id,
                ..SecurityGroupIntent::default()
            });
        }
        for row in rules {
            if let Some(group) = groups.get_mut(&row.group_id) {
                let rules = if row.is_egress {
                    &mut group.egress
                } else {
                    &mut group.ingress
                };
                rules.push(rule(row));
            }
        }
        let known: Vec<&String> = groups.keys().collect();
        let members: Vec<(String, String, String)> = sqlx::query_as(
            "SELECT s.vpc_id, s.id, ifnull(n.private_ip, '') FROM security_groups s
             LEFT JOIN network_interface_groups g ON g.group_id = s.id
             LEFT JOIN network_interfaces n ON n.id = g.network_interface_id
             WHERE s.id IN (SELECT value FROM json_each(?)) ORDER BY s.id, n.private_ip",
        )
        .bind(list(&known))
        .fetch_all(&mut *c)
        .await?;
        let mut by_vpc: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (vpc, group_id, address) in members {
            by_vpc.entry(vpc).or_default().insert(group_id.clone());
            if let Some(group) = groups.get_mut(&group_id).filter(|_| !address.is_empty()) {
                group.members.push(address);
            }
        }
        let used: BTreeSet<&str> = self.interfaces.values().map(|i| i.vpc_id.as_str()).collect();
        let vpcs: Vec<VpcRow> = super::networks::vpcs(c).await?;
        let intents = vpcs
            .into_iter()
            .filter(|vpc| used.contains(vpc.id.as_str()))
            .map(|vpc| {
                let ids = by_vpc.remove(&vpc.id).unwrap_or_default();
                VpcIntent {
                    security_groups: ids.iter().filter_map(|id| groups.remove(id)).collect(),
                    vpc_id: vpc.id,
                    cidr_block: vpc.cidr,
                    public_pool_cidr: surroundings.public_pool.to_string(),
                }
            });
        Ok(intents.collect())
    }
}

fn boot_mode(stored: &str) -> instance_intent::BootMode {
    match stored.parse() {
        Ok(BootMode::LegacyBios) => instance_intent::BootMode::LegacyBios,
        Ok(BootMode::Uefi) => instance_intent::BootMode::Uefi,
        Ok(BootMode::UefiPreferred) => instance_intent::BootMode::UefiPreferred,
        Err(_) => instance_intent::BootMode::Unspecified,
    }
}

fn rule(row: RuleRow) -> Rule {
    let number = |n: i64| i32::try_from(n).unwrap_or(-1);
    Rule {
        protocol: number(row.protocol),
        from_port: number(row.from_port),
        to_port: number(row.to_port),
        peer: Some(match row.referenced_group_id {
            Some(group) => rule::Peer::GroupId(group),
            None => rule::Peer::Cidr(row.cidr),
        }),
    }
}
