//! One instance, as its host shall run it.

use hearth_api::InstanceState;
use hearth_api::agent::{
    InstanceIntent, InstanceMetadata, InstanceProfile as InstanceProfileIntent, InstanceStoreDisk,
    InstanceVolume, NetworkInterface as InterfaceIntent,
    instance_intent::{BootMode as BootModeIntent, Desired},
};
use hearth_image::BootMode;

use crate::state::{
    AUTO_RECOVERY_DISABLED, Entity as _, Image, Instance, InstanceProfile, METADATA_TAGS_ENABLED,
    NetworkInterface, Progress, SecurityGroup, State, StoreDisk, Subnet, Volume,
};
use crate::views::{self, ROOT_DEVICE};

/// What an instance has of a host: its blob of user data, and its interfaces.
type Life<'s> = (InstanceIntent, Option<String>, Vec<&'s NetworkInterface>);

/// What a host shall make of an instance that lives there, or has left it.
pub(super) fn life<'s>(state: &'s State, id: &str, host_id: &str) -> Option<Life<'s>> {
    if state.incarnation(id).is_some_and(|life| life.host_id == host_id) {
        return instance(state, id);
    }
    // Its volumes are none of its business any more.
    let left = state.left(id, host_id)?;
    let intent = InstanceIntent {
        instance_id: id.to_owned(),
        desired: Desired::Terminated.into(),
        run: left.run,
        force: true,
        ..InstanceIntent::default()
    };
    Some((intent, None, Vec::new()))
}

/// An instance with its interfaces, the primary one first. It was made with one. The root volume is the first, and is not there
/// when it was detached from an instance that is stopped.
/// Volumes that lie elsewhere are left out, and it does not start before those that it needs have come.
fn instance<'s>(state: &'s State, id: &str) -> Option<Life<'s>> {
    let row = state
        .get::<Instance>(id)
        .filter(|row| !state.awaits_volumes(row))?;
    let mut interfaces: Vec<&NetworkInterface> = state.by(&NetworkInterface::BY_INSTANCE, id).collect();
    interfaces.sort_by_key(|row| row.attachment.as_ref().map(|a| (a.device.len(), &a.device)));
    let interface = *interfaces.first()?;
    let volumes = state.by(&Volume::BY_INSTANCE, id);
    let mut volumes: Vec<&Volume> = volumes.filter(|volume| !state.is_away(volume)).collect();
    volumes.sort_by_key(|row| {
        let device = row.attachment.as_ref().map(|a| a.device.as_str());
        (device != Some(ROOT_DEVICE), device)
    });
    // The root volume may be of another image, and the instance's own image may be gone when its root volume is.
    let root = volumes.first().and_then(|volume| volume.image_id.as_ref());
    let image = root
        .and_then(|id| state.get::<Image>(id))
        .or_else(|| state.get(&row.image_id));
    let has_run = row.run > 1 || row.state != InstanceState::Pending;
    let enis = interfaces.iter().map(|interface| eni(state, interface));
    let volumes = volumes.iter().map(|row| volume(state, row, has_run));
    let private_ip = interface.private_ip.to_string();
    let intent = InstanceIntent {
        instance_id: row.id.clone(),
        desired: row.desired.into(),
        run: row.run,
        reboot: row.reboot,
        force: row.force,
        auto_recovery_disabled: row.auto_recovery == AUTO_RECOVERY_DISABLED,
        boot_mode: image
            .map_or(BootModeIntent::Unspecified, |image| boot_mode(image.boot_mode))
            .into(),
        vcpus: row.vcpus,
        memory_mib: row.memory_mib,
        store_disks: row.store.iter().map(store_disk).collect(),
        store_run: row.store_run,
        keep_store: row.imaging,
        volumes: volumes.collect::<Option<_>>()?,
        network_interfaces: enis.collect::<Option<_>>()?,
        metadata: Some(InstanceMetadata {
            image_id: row.image_id.clone(),
            instance_type: row.instance_type.clone(),
            availability_zone: row.availability_zone.clone(),
            region: row.region.clone(),
            reservation_id: row.reservation_id.clone(),
            owner_id: row.account_id.clone(),
            ami_launch_index: row.ami_launch_index,
            local_hostname: views::private_dns_name(&private_ip, &row.region),
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
            instance_profile: profile(state, row),
            tags: if row.metadata_tags == METADATA_TAGS_ENABLED {
                row.tags.clone().into_iter().collect()
            } else {
                Default::default()
            },
        }),
    };
    Some((intent, row.user_data.clone(), interfaces))
}

fn profile(state: &State, row: &Instance) -> Option<InstanceProfileIntent> {
    let profile: &InstanceProfile = state.get(&row.profile.as_ref()?.profile_id)?;
    Some(InstanceProfileIntent {
        arn: profile.arn(),
        id: profile.id.clone(),
        role_id: profile.role_id.clone().unwrap_or_default(),
    })
}

fn volume(state: &State, row: &Volume, has_run: bool) -> Option<InstanceVolume> {
    let attachment = row.attachment.as_ref()?;
    let limits = row.spec.limits();
    let told = InstanceVolume {
        volume_id: row.id.clone(),
        size_bytes: row.spec.size_gib << 30,
        // What leaves the instance does not go with it, nor does what is being stored.
        delete_on_termination: attachment.delete_on_termination
            && !attachment.progress.is_ending()
            && state.pending_snapshot(&row.id).is_none(),
        attachment_epoch: row.epoch,
        // Volumes of images are made at their instance's launch, by hosts of before that did not say so, too.
        has_run: row.is_made || has_run && row.image_id.is_some() && row.moved.is_none(),
        device_name: attachment.device.clone(),
        iops: limits.iops,
        throughput_mib: limits.throughput_mib,
        detaching: attachment.progress.is_ending(),
        force_detach: attachment.progress == Progress::Forced,
        encrypted: row.encryption.is_some(),
        ..InstanceVolume::default()
    };
    let Some(base) = state.base_of(row) else {
        return Some(told);
    };
    Some(InstanceVolume {
        image_id: base.id.to_owned(),
        image_size_bytes: base.size,
        image_digest: base.digest.to_owned(),
        image_encrypted: base.encryption.is_some(),
        ..told
    })
}

fn store_disk(disk: &StoreDisk) -> InstanceStoreDisk {
    InstanceStoreDisk {
        number: disk.number,
        size_bytes: disk.bytes(),
        device_name: disk.device.clone(),
    }
}

fn eni(state: &State, row: &NetworkInterface) -> Option<InterfaceIntent> {
    Some(InterfaceIntent {
        network_interface_id: row.id.clone(),
        vpc_id: row.vpc_id.clone(),
        subnet_id: row.subnet_id.clone(),
        subnet_cidr: state.get::<Subnet>(&row.subnet_id)?.cidr.to_string(),
        mac_address: row.mac_address.clone(),
        private_ip: row.private_ip.to_string(),
        public_ip: row.public_ip.map(|ip| ip.to_string()).unwrap_or_default(),
        security_group_ids: row.groups.clone(),
        attachment_epoch: row.epoch,
    })
}

fn boot_mode(mode: BootMode) -> BootModeIntent {
    match mode {
        BootMode::LegacyBios => BootModeIntent::LegacyBios,
        BootMode::Uefi => BootModeIntent::Uefi,
        BootMode::UefiPreferred => BootModeIntent::UefiPreferred,
    }
}
