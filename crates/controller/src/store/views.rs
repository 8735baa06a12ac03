//! Instances as the API tells them: rows of several nouns put together.

use std::collections::HashMap;

use hearth_api::{InstanceState, v1};
use hearth_image::BootMode;
use sqlx::SqliteConnection;

use super::instances::{self, InstanceRow};
use super::networks::{InterfaceRow, VolumeRow};
use super::{Result, list, tags};

/// What all instances of a cloud have in common.
#[derive(Debug, Clone)]
pub struct Cloud {
    pub owner_id: String,
    pub region: String,
}

/// What the guest sees it as.
pub const ROOT_DEVICE: &str = "/dev/vda";
pub const ARCHITECTURE: &str = "x86_64";

/// All instances, or the named ones that exist, in the order of reservation and launch index.
pub async fn instances(
    c: &mut SqliteConnection,
    ids: Option<&[String]>,
    cloud: &Cloud,
) -> Result<Vec<v1::Instance>> {
    let mut rows = match ids {
        None => instances::all(c).await?,
        Some(ids) => instances::by_ids(c, ids).await?,
    };
    rows.sort_by(|a, b| {
        (&a.reservation_id, a.ami_launch_index).cmp(&(&b.reservation_id, b.ami_launch_index))
    });
    let wanted: Vec<String> = rows.iter().map(|row| row.id.clone()).collect();
    let parts = Parts::load(c, &wanted).await?;
    Ok(rows.into_iter().map(|row| parts.instance(row, cloud)).collect())
}

/// What belongs to instances, by instance.
struct Parts {
    interfaces: HashMap<String, InterfaceRow>,
    groups: HashMap<String, Vec<v1::GroupIdentifier>>,
    volumes: HashMap<String, Vec<VolumeRow>>,
    /// By image.
    boot_modes: HashMap<String, String>,
    tags: HashMap<String, Vec<v1::Tag>>,
}

impl Parts {
    async fn load(c: &mut SqliteConnection, ids: &[String]) -> Result<Self> {
        let wanted = list(ids);
        let interfaces: Vec<InterfaceRow> = sqlx::query_as(
            "SELECT * FROM network_interfaces WHERE instance_id IN (SELECT value FROM json_each(?))",
        )
        .bind(&wanted)
        .fetch_all(&mut *c)
        .await?;
        let members: Vec<(String, String, String)> = sqlx::query_as(
            "SELECT n.instance_id, s.id, s.name FROM network_interfaces n
             JOIN network_interface_groups g ON g.network_interface_id = n.id
             JOIN security_groups s ON s.id = g.group_id
             WHERE n.instance_id IN (SELECT value FROM json_each(?)) ORDER BY s.id",
        )
        .bind(&wanted)
        .fetch_all(&mut *c)
        .await?;
        let volume_rows: Vec<VolumeRow> = sqlx::query_as(
            "SELECT * FROM volumes WHERE instance_id IN (SELECT value FROM json_each(?)) ORDER BY device_name",
        )
        .bind(&wanted)
        .fetch_all(&mut *c)
        .await?;
        let mut groups: HashMap<String, Vec<v1::GroupIdentifier>> = HashMap::new();
        for (instance, group_id, group_name) in members {
            groups
                .entry(instance)
                .or_default()
                .push(v1::GroupIdentifier { group_id, group_name });
        }
        let mut volumes: HashMap<String, Vec<VolumeRow>> = HashMap::new();
        for row in volume_rows {
            if let Some(instance) = row.instance_id.clone() {
                volumes.entry(instance).or_default().push(row);
            }
        }
        let boot_modes: Vec<(String, String)> = sqlx::query_as(
            "SELECT DISTINCT m.id, m.boot_mode FROM images m JOIN instances i ON i.image_id = m.id
             WHERE i.id IN (SELECT value FROM json_each(?))",
        )
        .bind(&wanted)
        .fetch_all(&mut *c)
        .await?;
        Ok(Self {
            boot_modes: boot_modes.into_iter().collect(),
            interfaces: interfaces
                .into_iter()
                .map(|i| (i.instance_id.clone(), i))
                .collect(),
            groups,
            volumes,
            tags: tags::of_type(c, "instance", Some(ids)).await?,
        })
    }

    fn instance(&self, row: InstanceRow, cloud: &Cloud) -> v1::Instance {
        let state = row.state();
        let groups = self.groups.get(&row.id).cloned().unwrap_or_default();
        let boot_mode = self.boot_modes.get(&row.image_id).cloned().unwrap_or_default();
        let mut told = v1::Instance {
            // What both roads boot is booted directly.
            current_instance_boot_mode: match boot_mode.parse() {
                Ok(BootMode::Uefi) => BootMode::Uefi,
                _ => BootMode::LegacyBios,
            }
            .as_str()
            .to_owned(),
            boot_mode,
            state: Some(state.into()),
            state_reason: (!row.reason_code.is_empty()).then_some(v1::StateReason {
                code: row.reason_code,
                message: row.reason_message,
            }),
            state_transition_reason: row.transition_reason,
            image_id: row.image_id,
            instance_type: row.instance_type,
            key_name: row.key_name,
            launch_time: Some(timestamp(row.launch_time)),
            placement: Some(v1::Placement {
                availability_zone: row.availability_zone,
                host_id: row.host_id,
            }),
            root_device_name: ROOT_DEVICE.into(),
            tags: self.tags.get(&row.id).cloned().unwrap_or_default(),
            ami_launch_index: i32::try_from(row.ami_launch_index).unwrap_or(i32::MAX),
            client_token: row.client_token,
            metadata_options: Some(v1::InstanceMetadataOptions {
                http_tokens: row.http_tokens,
                http_endpoint: row.http_endpoint,
                http_put_response_hop_limit: i32::try_from(row.http_hop_limit).unwrap_or(1),
                instance_metadata_tags: row.metadata_tags,
            }),
            maintenance_options: Some(v1::InstanceMaintenanceOptions {
                auto_recovery: row.auto_recovery,
            }),
            instance_initiated_shutdown_behavior: row.shutdown_behavior,
            reservation_id: row.reservation_id,
            architecture: ARCHITECTURE.into(),
            ..v1::Instance::default()
        };
        if let Some(interface) = self.interfaces.get(&row.id) {
            let public_ip = interface.public_ip.clone().unwrap_or_default();
            told.private_ip_address.clone_from(&interface.private_ip);
            told.public_ip_address.clone_from(&public_ip);
            told.private_dns_name = private_dns_name(&interface.private_ip, &cloud.region);
            told.subnet_id.clone_from(&interface.subnet_id);
            told.vpc_id.clone_from(&interface.vpc_id);
            told.security_groups.clone_from(&groups);
            told.network_interfaces = vec![v1::InstanceNetworkInterface {
                network_interface_id: interface.id.clone(),
                mac_address: interface.mac_address.clone(),
                private_ip_address: interface.private_ip.clone(),
                public_ip,
                subnet_id: interface.subnet_id.clone(),
                vpc_id: interface.vpc_id.clone(),
                groups,
            }];
        }
        let status = match state {
            InstanceState::Pending => "attaching",
            InstanceState::ShuttingDown => "detaching",
            _ => "attached",
        };
        let volumes = self.volumes.get(&row.id).into_iter().flatten();
        told.block_device_mappings = volumes
            .map(|volume| v1::BlockDeviceMapping {
                device_name: volume.device_name.clone(),
                ebs: Some(v1::EbsBlockDevice {
                    volume_size: volume.size_gib,
                    delete_on_termination: Some(volume.delete_on_termination),
                    volume_id: volume.id.clone(),
                    status: status.into(),
                }),
            })
            .collect();
        told.instance_id = row.id;
        told
    }
}

/// What an instance is called everywhere: in Describe, in its metadata, by DHCP and in DNS. EC2's name by IP address
/// (user guide, "EC2 instance hostnames and domains"): `ip-172-31-0-4.ec2.internal` in `us-east-1`, and
/// `ip-172-31-0-4.eu-west-1.compute.internal` elsewhere.
pub fn private_dns_name(private_ip: &str, region: &str) -> String {
    let host = private_ip.replace('.', "-");
    match region {
        "us-east-1" => format!("ip-{host}.ec2.internal"),
        _ => format!("ip-{host}.{region}.compute.internal"),
    }
}

pub fn timestamp(milliseconds: i64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: milliseconds.div_euclid(1000),
        nanos: i32::try_from(milliseconds.rem_euclid(1000) * 1_000_000).unwrap_or(0),
    }
}
