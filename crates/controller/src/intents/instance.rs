//! One instance, as its host shall run it.

use hearth_api::InstanceState;
use hearth_api::agent::{
    InstanceIntent, InstanceMetadata, NetworkInterface as InterfaceIntent, RootVolume, instance_intent,
};
use hearth_image::BootMode;

use crate::state::{
    AUTO_RECOVERY_DISABLED, Image, Instance, METADATA_TAGS_ENABLED, NetworkInterface, SecurityGroup, State,
    Subnet, Volume,
};
use crate::views::{self, Cloud};

/// An instance, its interface and its volume are made in one transaction, so that all are there.
pub(super) fn instance<'s>(
    state: &'s State,
    id: &str,
    cloud: &Cloud,
) -> Option<(InstanceIntent, &'s Instance, &'s NetworkInterface)> {
    let row = state.get::<Instance>(id)?;
    let interface = state.interface_of(id)?;
    let subnet = state.get::<Subnet>(&interface.subnet_id)?;
    let volume = state.first_by(&Volume::BY_INSTANCE, id)?;
    let image = state.get::<Image>(&volume.image_id)?;
    let private_ip = interface.private_ip.to_string();
    let intent = InstanceIntent {
        instance_id: row.id.clone(),
        desired: row.desired.into(),
        run: row.run,
        reboot: row.reboot,
        force: row.force,
        auto_recovery_disabled: row.auto_recovery == AUTO_RECOVERY_DISABLED,
        boot_mode: boot_mode(image.boot_mode).into(),
        vcpus: row.vcpus,
        memory_mib: row.memory_mib,
        root_volume: Some(RootVolume {
            volume_id: volume.id.clone(),
            size_bytes: volume.size_gib << 30,
            image_id: volume.image_id.clone(),
            image_size_bytes: image.size,
            image_digest: image.digest.clone(),
            delete_on_termination: volume.delete_on_termination,
            has_run: row.run > 1 || row.state != InstanceState::Pending,
        }),
        network_interface: Some(InterfaceIntent {
            network_interface_id: interface.id.clone(),
            vpc_id: interface.vpc_id.clone(),
            subnet_id: interface.subnet_id.clone(),
            subnet_cidr: subnet.cidr.to_string(),
            mac_address: interface.mac_address.clone(),
            private_ip: private_ip.clone(),
            public_ip: interface.public_ip.map(|ip| ip.to_string()).unwrap_or_default(),
            security_group_ids: interface.groups.clone(),
        }),
        metadata: Some(InstanceMetadata {
            image_id: row.image_id.clone(),
            instance_type: row.instance_type.clone(),
            availability_zone: row.availability_zone.clone(),
            region: cloud.region.clone(),
            reservation_id: row.reservation_id.clone(),
            owner_id: row.account_id.clone(),
            ami_launch_index: row.ami_launch_index,
            local_hostname: views::private_dns_name(&private_ip, &cloud.region),
            key_name: row.key_name.clone(),
            public_key: row.public_key.clone(),
            user_data: Vec::new(),
            security_group_names: interface
                .groups
                .iter()
                .filter_map(|id| state.get::<SecurityGroup>(id))
                .map(|group| group.name.clone())
                .collect(),
            http_tokens_required: row.http_tokens == "required",
            http_endpoint_enabled: row.http_endpoint == "enabled",
            http_put_response_hop_limit: row.http_hop_limit,
            launch_time: row.launch_time.div_euclid(1000),
            tags: if row.metadata_tags == METADATA_TAGS_ENABLED {
                row.tags.clone().into_iter().collect()
            } else {
                Default::default()
            },
        }),
    };
    Some((intent, row, interface))
}

fn boot_mode(mode: BootMode) -> instance_intent::BootMode {
    match mode {
        BootMode::LegacyBios => instance_intent::BootMode::LegacyBios,
        BootMode::Uefi => instance_intent::BootMode::Uefi,
        BootMode::UefiPreferred => instance_intent::BootMode::UefiPreferred,
    }
}
