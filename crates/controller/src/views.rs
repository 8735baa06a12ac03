//! Instances as the API tells them: objects of several nouns put together.

use hearth_api::filter::Values;
use hearth_api::{InstanceState, v1};
use hearth_image::BootMode;
use ipnet::Ipv4Net;

use crate::catalog::instance_types;
use crate::services::tell_profile;
use crate::state::noun::tell_tags;
use crate::state::{
    Attachment, Encryption, Image, Instance, NetworkInterface, Observation, Progress, SecurityGroup, State,
    Subnet, Volume,
};
use hearth_api::zones;

/// What all instances of a cloud have in common.
#[derive(Debug, Clone)]
pub struct Cloud {
    pub owner_id: String,
    /// Public IPv4 addresses.
    pub public_pool: Ipv4Net,
}

/// What the guest sees it as.
pub const ROOT_DEVICE: &str = "/dev/vda";
pub const ARCHITECTURE: &str = "x86_64";
/// EC2 has no word for KVM but `nitro`, which promises devices that Hearth does not have.
pub const HYPERVISOR: &str = "xen";
pub const VIRTUALIZATION: &str = "hvm";
/// The one kind of enhanced networking that is told by its name.
pub const SRIOV: &str = "simple";
pub const ROOT_DEVICE_TYPE: &str = "ebs";
pub const PLATFORM: &str = "Linux/UNIX";
/// What EC2 calls its own account, to which public addresses belong that are not Elastic ones.
const AMAZON: &str = "amazon";

/// ARN of the KMS key of something encrypted in a region; empty where it is not.
pub fn kms_key(encryption: Option<&Encryption>, region: &str) -> String {
    encryption.map_or_else(String::new, |encryption| encryption.arn(region))
}

/// The instances of a reservation, in the order of their launch index.
pub fn reservation(state: &State, reservation_id: &str) -> Vec<v1::Instance> {
    let mut rows: Vec<_> = state.by(&Instance::BY_RESERVATION, reservation_id).collect();
    rows.sort_by_key(|row| row.ami_launch_index);
    rows.into_iter().map(|row| instance(state, row)).collect()
}

/// All instances, or the named ones that exist, in the order of reservation and launch index.
pub fn instances(state: &State, ids: Option<&[String]>) -> Vec<v1::Instance> {
    let mut rows: Vec<&Instance> = match ids {
        None => state.all().collect(),
        Some(ids) => ids.iter().filter_map(|id| state.get(id)).collect(),
    };
    rows.sort_by_key(|row| (&row.reservation_id, row.ami_launch_index));
    rows.into_iter().map(|row| instance(state, row)).collect()
}

pub fn instance(state: &State, row: &Instance) -> v1::Instance {
    // The image may be shared no more.
    let boot_mode = state
        .of_anybody::<Image>(&row.image_id)
        .map(|image| image.boot_mode);
    let mut told = v1::Instance {
        instance_id: row.id.clone(),
        current_instance_boot_mode: current_boot_mode(state, row, boot_mode).as_str().to_owned(),
        boot_mode: boot_mode.map_or("", BootMode::as_str).to_owned(),
        state: Some(row.state.into()),
        state_reason: (!row.reason_code.is_empty()).then(|| v1::StateReason {
            code: row.reason_code.clone(),
            message: row.reason_message.clone(),
        }),
        state_transition_reason: row.transition_reason.clone(),
        image_id: row.image_id.clone(),
        instance_type: row.instance_type.clone(),
        key_name: row.key_name.clone(),
        launch_time: Some(timestamp(row.launch_time)),
        placement: Some(state.placement_of(row)),
        root_device_name: ROOT_DEVICE.into(),
        tags: tell_tags(&row.tags),
        ami_launch_index: i32::try_from(row.ami_launch_index).unwrap_or(i32::MAX),
        client_token: row.client_token.clone(),
        metadata_options: Some(metadata_options(row)),
        maintenance_options: Some(v1::InstanceMaintenanceOptions {
            auto_recovery: row.auto_recovery.clone(),
        }),
        architecture: ARCHITECTURE.into(),
        cpu_options: Some(cpu_options(row)),
        hypervisor: HYPERVISOR.into(),
        monitoring: Some(v1::Monitoring {
            state: "disabled".into(),
        }),
        platform_details: PLATFORM.into(),
        root_device_type: ROOT_DEVICE_TYPE.into(),
        source_dest_check: true,
        usage_operation: "RunInstances".into(),
        usage_operation_update_time: Some(timestamp(row.launch_time)),
        virtualization_type: VIRTUALIZATION.into(),
        iam_instance_profile: tell_profile(state, row),
        hibernation_options: Some(v1::HibernationOptions { configured: false }),
        enclave_options: Some(v1::EnclaveOptions { enabled: false }),
        ..v1::Instance::default()
    };
    tell_interface(state, &mut told);
    told.block_device_mappings = block_devices(state, row);
    told
}

/// The volumes of an instance, the root volume first, the others in the order of their devices.
pub fn block_devices(state: &State, row: &Instance) -> Vec<v1::InstanceBlockDeviceMapping> {
    let volumes = state.by(&Volume::BY_INSTANCE, &row.id);
    let mut attached: Vec<_> = volumes
        .filter_map(|volume| Some((volume, volume.attachment.as_ref()?)))
        .collect();
    attached.sort_by_key(|(_, attachment)| (attachment.device != ROOT_DEVICE, &attachment.device));
    attached
        .into_iter()
        .map(|(volume, attachment)| v1::InstanceBlockDeviceMapping {
            device_name: attachment.device.clone(),
            ebs: Some(v1::EbsInstanceBlockDevice {
                attach_time: Some(timestamp(attachment.attached_at)),
                delete_on_termination: attachment.delete_on_termination,
                status: volume_attachment_status(attachment, row.state).into(),
                volume_id: volume.id.clone(),
            }),
        })
        .collect()
}

pub fn metadata_options(row: &Instance) -> v1::InstanceMetadataOptionsResponse {
    v1::InstanceMetadataOptionsResponse {
        http_tokens: row.http_tokens.clone(),
        http_endpoint: row.http_endpoint.clone(),
        http_put_response_hop_limit: i32::try_from(row.http_hop_limit).unwrap_or(1),
        instance_metadata_tags: row.metadata_tags.clone(),
        http_protocol_ipv6: "disabled".into(),
        state: "applied".into(),
    }
}

/// What the type had at the launch; the threads of a core are those of today's catalogue.
fn cpu_options(row: &Instance) -> v1::CpuOptions {
    let threads = instance_types::find(&row.instance_type).map_or(1, |kind| kind.threads_per_core.max(1));
    let signed = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    v1::CpuOptions {
        core_count: signed((row.vcpus / threads).max(1)),
        threads_per_core: signed(threads.min(row.vcpus)),
    }
}

/// The status of the attachment of a volume to an instance in a state.
pub fn volume_attachment_status(attachment: &Attachment, instance: InstanceState) -> &'static str {
    match attachment.progress {
        Progress::Attached => attachment_status(instance),
        Progress::Attaching => "attaching",
        Progress::Detaching | Progress::Forced => "detaching",
        Progress::Busy => "busy",
    }
}

/// The status of the attachment of an interface, or of a volume that its instance has as long as it runs.
fn attachment_status(instance: InstanceState) -> &'static str {
    match instance {
        InstanceState::Pending => "attaching",
        InstanceState::ShuttingDown => "detaching",
        _ => "attached",
    }
}

/// As its host says; until it has, what is most likely: what both roads boot is booted directly.
fn current_boot_mode(state: &State, row: &Instance, image: Option<BootMode>) -> BootMode {
    let told = state
        .get::<Observation>(&row.id)
        .and_then(|seen| seen.by_firmware);
    if told.unwrap_or(image == Some(BootMode::Uefi)) {
        BootMode::Uefi
    } else {
        BootMode::LegacyBios
    }
}

fn tell_interface(state: &State, told: &mut v1::Instance) {
    let Some(interface) = state.interface_of(&told.instance_id) else {
        return;
    };
    let groups = group_identifiers(state, &interface.groups);
    let private_ip = interface.private_ip.to_string();
    let public_ip = interface.public_ip.map(|ip| ip.to_string()).unwrap_or_default();
    told.private_dns_name = private_dns_name(&private_ip, &interface.region);
    told.private_ip_address.clone_from(&private_ip);
    told.public_ip_address.clone_from(&public_ip);
    told.subnet_id.clone_from(&interface.subnet_id);
    told.vpc_id.clone_from(&interface.vpc_id);
    told.security_groups.clone_from(&groups);
    let told_alone = network_interface(state, interface);
    told.network_interfaces = vec![v1::InstanceNetworkInterface {
        association: told_alone.association,
        attachment: told_alone
            .attachment
            .map(|attachment| v1::InstanceNetworkInterfaceAttachment {
                attach_time: attachment.attach_time,
                attachment_id: attachment.attachment_id,
                delete_on_termination: attachment.delete_on_termination,
                device_index: attachment.device_index,
                network_card_index: attachment.network_card_index,
                status: attachment.status,
            }),
        description: told_alone.description,
        groups,
        interface_type: told_alone.interface_type,
        mac_address: told_alone.mac_address,
        network_interface_id: told_alone.network_interface_id,
        owner_id: told_alone.owner_id,
        private_dns_name: told_alone.private_dns_name,
        private_ip_address: told_alone.private_ip_address,
        private_ip_addresses: told_alone.private_ip_addresses,
        source_dest_check: told_alone.source_dest_check,
        status: told_alone.status,
        subnet_id: told_alone.subnet_id,
        vpc_id: told_alone.vpc_id,
    }];
}

/// A network interface by itself.
pub fn network_interface(state: &State, row: &NetworkInterface) -> v1::NetworkInterface {
    let private_ip = row.private_ip.to_string();
    let private_dns_name = private_dns_name(&private_ip, &row.region);
    let association = row.public_ip.map(|ip| v1::InstanceNetworkInterfaceAssociation {
        ip_owner_id: AMAZON.into(),
        public_dns_name: String::new(),
        public_ip: ip.to_string(),
    });
    let attachment = row.attachment.as_ref().map(|attachment| {
        let instance = state.get::<Instance>(&attachment.instance_id);
        v1::NetworkInterfaceAttachment {
            attach_time: Some(timestamp(attachment.attached_at)),
            // An attachment is told apart by its interface alone.
            attachment_id: row.id.replacen("eni-", "eni-attach-", 1),
            delete_on_termination: attachment.delete_on_termination,
            device_index: attachment.device.parse().unwrap_or_default(),
            instance_id: attachment.instance_id.clone(),
            instance_owner_id: row.account_id.clone(),
            network_card_index: 0,
            status: instance
                .map_or("attached", |row| attachment_status(row.state))
                .to_owned(),
        }
    });
    let zone = state
        .get::<Subnet>(&row.subnet_id)
        .map(|subnet| subnet.availability_zone.clone());
    v1::NetworkInterface {
        status: if attachment.is_some() {
            "in-use"
        } else {
            "available"
        }
        .to_owned(),
        attachment,
        availability_zone_id: zone.as_deref().map_or_else(String::new, zones::id),
        availability_zone: zone.unwrap_or_default(),
        description: String::new(),
        groups: group_identifiers(state, &row.groups),
        interface_type: "interface".into(),
        mac_address: row.mac_address.clone(),
        network_interface_id: row.id.clone(),
        owner_id: row.account_id.clone(),
        private_dns_name: private_dns_name.clone(),
        private_ip_address: private_ip.clone(),
        private_ip_addresses: vec![v1::InstancePrivateIpAddress {
            association: association.clone(),
            primary: true,
            private_dns_name,
            private_ip_address: private_ip,
        }],
        association,
        requester_managed: false,
        source_dest_check: true,
        subnet_id: row.subnet_id.clone(),
        tag_set: tell_tags(&row.tags),
        vpc_id: row.vpc_id.clone(),
    }
}

/// Groups by their ids.
pub fn group_identifiers(state: &State, ids: &[String]) -> Vec<v1::GroupIdentifier> {
    ids.iter()
        .filter_map(|id| state.get::<SecurityGroup>(id))
        .map(|group| v1::GroupIdentifier {
            group_id: group.id.clone(),
            group_name: group.name.clone(),
        })
        .collect()
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

/// What hostnames are made of, as filters have it: the private address.
pub fn ip_name<T>(_: &T, into: &mut Values<'_>) {
    into.push("ip-name".into());
}

/// Empty: an image does not have the driver.
pub fn sriov(has_driver: bool) -> &'static str {
    if has_driver { SRIOV } else { "" }
}

/// A time where EC2's model has a text: `2026-11-27T09:30:00.000Z`.
pub fn time(milliseconds: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(milliseconds).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

pub fn timestamp(milliseconds: i64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: milliseconds.div_euclid(1000),
        nanos: i32::try_from(milliseconds.rem_euclid(1000) * 1_000_000).unwrap_or(0),
    }
}
