//! What a host shall make so: all that is its own at a generation.

use std::collections::{BTreeMap, BTreeSet};

use hearth_api::agent::{
    InstanceIntent, InstanceMetadata, Intents, NetworkInterface as InterfaceIntent, RootVolume, Rule,
    SecurityGroupIntent, VpcIntent, instance_intent, rule,
};
use hearth_image::BootMode;

use crate::state::{
    self, AUTO_RECOVERY_DISABLED, Claim, Image, Instance, METADATA_TAGS_ENABLED, NetworkInterface,
    SecurityGroup, SecurityGroupRule, State, Subnet, Volume, Vpc,
};
use crate::views::{self, Cloud};

/// The intents of a host, without user data.
#[derive(Debug)]
pub struct HostIntents {
    pub intents: Intents,
    /// The blob of each instance's user data, in the order of the instances.
    pub user_data: Vec<Option<String>>,
}

/// All intents of a host; `None` for a host that is unknown or forgotten.
pub fn of_host(state: &State, host_id: &str, cloud: &Cloud) -> Option<HostIntents> {
    let host = state.host(host_id)?;
    let (mut instances, mut user_data, mut interfaces) = (Vec::new(), Vec::new(), Vec::new());
    for claim in state.by(&Claim::BY_HOST, host_id) {
        let Some((intent, row, interface)) = instance(state, &claim.instance_id, cloud) else {
            continue;
        };
        instances.push(intent);
        user_data.push(row.user_data.clone());
        interfaces.push(interface);
    }
    Some(HostIntents {
        intents: Intents {
            generation: host.generation,
            epoch: state
                .get::<state::Cloud>(state::Cloud::ID)
                .map(|cloud| cloud.epoch.clone())
                .unwrap_or_default(),
            instances,
            vpcs: vpcs(state, &interfaces, cloud),
        },
        user_data,
    })
}

/// An instance, its interface and its volume are made in one transaction, so that all are there.
fn instance<'s>(
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

/// The VPCs that the host's interfaces are in, with the groups of those interfaces in full. A group that is only named by
/// one of their rules comes with its members alone: nothing here is filtered by its rules.
fn vpcs(state: &State, interfaces: &[&NetworkInterface], cloud: &Cloud) -> Vec<VpcIntent> {
    let own: BTreeSet<&str> = interfaces
        .iter()
        .flat_map(|interface| interface.groups.iter().map(String::as_str))
        .collect();
    let mut groups: BTreeMap<&str, SecurityGroupIntent> = BTreeMap::new();
    for id in own {
        let rules = state.rules_of(id);
        for named in rules
            .iter()
            .filter_map(|rule| rule.referenced_group_id.as_deref())
        {
            groups.entry(named).or_default();
        }
        let group = groups.entry(id).or_default();
        for row in rules {
            let rules = if row.is_egress {
                &mut group.egress
            } else {
                &mut group.ingress
            };
            rules.push(rule(row));
        }
    }
    let mut by_vpc: BTreeMap<&str, Vec<SecurityGroupIntent>> = BTreeMap::new();
    for (id, mut group) in groups {
        let Some(row) = state.get::<SecurityGroup>(id) else {
            continue;
        };
        group.group_id = id.to_owned();
        let mut members: Vec<_> = state
            .by(&NetworkInterface::BY_GROUP, id)
            .map(|interface| interface.private_ip)
            .collect();
        members.sort_unstable();
        group.members = members.iter().map(ToString::to_string).collect();
        by_vpc.entry(&row.vpc_id).or_default().push(group);
    }
    let used: BTreeSet<&str> = interfaces.iter().map(|i| i.vpc_id.as_str()).collect();
    used.into_iter()
        .filter_map(|id| state.get::<Vpc>(id))
        .map(|vpc| VpcIntent {
            security_groups: by_vpc.remove(vpc.id.as_str()).unwrap_or_default(),
            vpc_id: vpc.id.clone(),
            cidr_block: vpc.cidr.to_string(),
            public_pool_cidr: cloud.public_pool.to_string(),
        })
        .collect()
}

fn boot_mode(mode: BootMode) -> instance_intent::BootMode {
    match mode {
        BootMode::LegacyBios => instance_intent::BootMode::LegacyBios,
        BootMode::Uefi => instance_intent::BootMode::Uefi,
        BootMode::UefiPreferred => instance_intent::BootMode::UefiPreferred,
    }
}

fn rule(row: &SecurityGroupRule) -> Rule {
    let number = |n: i64| i32::try_from(n).unwrap_or(-1);
    Rule {
        protocol: number(row.protocol),
        from_port: number(row.from_port),
        to_port: number(row.to_port),
        peer: Some(match &row.referenced_group_id {
            Some(group) => rule::Peer::GroupId(group.clone()),
            None => rule::Peer::Cidr(row.cidr.clone()),
        }),
    }
}
