//! DescribeInstances: filters meet instances, pages count reservations.

use std::borrow::Cow;

use hearth_api::Kind;
use hearth_api::filter::{Filters, Values};
use hearth_api::page::{paginate, refuse_page_of_ids};
use hearth_api::v1::{DescribeInstancesRequest, DescribeInstancesResponse, Instance, Reservation};

use crate::app::App;
use crate::services::{Failure, input, refuse_dry_run};
use crate::store::views;

const FILTERS: &[&str] = &[
    "architecture",
    "availability-zone",
    "block-device-mapping.device-name",
    "block-device-mapping.volume-id",
    "boot-mode",
    "client-token",
    "current-instance-boot-mode",
    "group-id",
    "group-name",
    "host-id",
    "image-id",
    "instance-id",
    "instance-state-code",
    "instance-state-name",
    "instance-type",
    "instance.group-id",
    "instance.group-name",
    "ip-address",
    "key-name",
    "launch-index",
    "maintenance-options.auto-recovery",
    "metadata-options.http-endpoint",
    "metadata-options.http-tokens",
    "metadata-options.instance-metadata-tags",
    "network-interface.addresses.private-ip-address",
    "network-interface.mac-address",
    "network-interface.network-interface-id",
    "network-interface.subnet-id",
    "network-interface.vpc-id",
    "owner-id",
    "private-dns-name",
    "private-ip-address",
    "reservation-id",
    "root-device-name",
    "state-reason-code",
    "subnet-id",
    "tag",
    "vpc-id",
];

pub(super) async fn describe(
    app: &App,
    request: DescribeInstancesRequest,
) -> Result<DescribeInstancesResponse, Failure> {
    let DescribeInstancesRequest {
        instance_ids,
        filters,
        page,
        dry_run,
    } = request;
    refuse_page_of_ids(&instance_ids, page.as_ref(), "instancesSet")?;
    let filters = Filters::new(&filters, FILTERS)?;
    let wanted = match instance_ids.as_slice() {
        [] => None,
        ids => Some(input::ids(Kind::Instance, ids, "InstanceId")?),
    };
    let mut read = app.store.read().await?;
    let instances = views::instances(&mut read, wanted.as_deref(), app.cloud()).await?;
    drop(read);
    input::all_known(
        Kind::Instance,
        &instance_ids,
        instances.iter().map(|i| i.instance_id.as_str()),
    )?;
    refuse_dry_run(dry_run)?;

    let owner_id = &app.cloud().owner_id;
    let mut reservations: Vec<Reservation> = Vec::new();
    let told = instances
        .into_iter()
        .filter(|i| filters.matches(&i.tags, |name| values(i, owner_id, name)));
    for instance in told {
        match reservations.last_mut() {
            Some(last) if last.reservation_id == instance.reservation_id => last.instances.push(instance),
            _ => reservations.push(Reservation {
                reservation_id: instance.reservation_id.clone(),
                owner_id: owner_id.clone(),
                instances: vec![instance],
            }),
        }
    }
    let (reservations, next_token) = paginate(reservations, page.as_ref(), |r| r.reservation_id.clone())?;
    Ok(DescribeInstancesResponse {
        reservations,
        next_token,
    })
}

fn values<'i>(instance: &'i Instance, owner_id: &'i str, name: &str) -> Values<'i> {
    let text = |text: &'i str| -> Values<'i> {
        if text.is_empty() {
            Vec::new()
        } else {
            vec![Cow::Borrowed(text)]
        }
    };
    let placement = instance.placement.as_ref();
    let state = instance.state.as_ref();
    let metadata = instance.metadata_options.as_ref();
    let interfaces = || instance.network_interfaces.iter();
    let devices = || instance.block_device_mappings.iter();
    match name {
        "architecture" => text(&instance.architecture),
        "boot-mode" => text(&instance.boot_mode),
        "current-instance-boot-mode" => text(&instance.current_instance_boot_mode),
        "availability-zone" => text(placement.map_or("", |p| &p.availability_zone)),
        "block-device-mapping.device-name" => devices().map(|d| d.device_name.as_str().into()).collect(),
        "block-device-mapping.volume-id" => devices()
            .filter_map(|d| d.ebs.as_ref())
            .map(|ebs| ebs.volume_id.as_str().into())
            .collect(),
        "client-token" => text(&instance.client_token),
        "group-id" | "instance.group-id" => instance
            .security_groups
            .iter()
            .map(|g| g.group_id.as_str().into())
            .collect(),
        "group-name" | "instance.group-name" => instance
            .security_groups
            .iter()
            .map(|g| g.group_name.as_str().into())
            .collect(),
        "host-id" => text(placement.map_or("", |p| &p.host_id)),
        "image-id" => text(&instance.image_id),
        "instance-id" => text(&instance.instance_id),
        "instance-state-code" => state.map(|s| s.code.to_string().into()).into_iter().collect(),
        "instance-state-name" => text(state.map_or("", |s| &s.name)),
        "instance-type" => text(&instance.instance_type),
        "ip-address" => text(&instance.public_ip_address),
        "key-name" => text(&instance.key_name),
        "launch-index" => vec![instance.ami_launch_index.to_string().into()],
        "maintenance-options.auto-recovery" => text(
            instance
                .maintenance_options
                .as_ref()
                .map_or("", |m| &m.auto_recovery),
        ),
        "metadata-options.http-endpoint" => text(metadata.map_or("", |m| &m.http_endpoint)),
        "metadata-options.instance-metadata-tags" => text(metadata.map_or("", |m| &m.instance_metadata_tags)),
        "metadata-options.http-tokens" => text(metadata.map_or("", |m| &m.http_tokens)),
        "network-interface.addresses.private-ip-address" => interfaces()
            .map(|n| n.private_ip_address.as_str().into())
            .collect(),
        "network-interface.mac-address" => interfaces().map(|n| n.mac_address.as_str().into()).collect(),
        "network-interface.network-interface-id" => interfaces()
            .map(|n| n.network_interface_id.as_str().into())
            .collect(),
        "network-interface.subnet-id" | "subnet-id" => text(&instance.subnet_id),
        "network-interface.vpc-id" | "vpc-id" => text(&instance.vpc_id),
        "owner-id" => text(owner_id),
        "private-dns-name" => text(&instance.private_dns_name),
        "private-ip-address" => text(&instance.private_ip_address),
        "reservation-id" => text(&instance.reservation_id),
        "root-device-name" => text(&instance.root_device_name),
        "state-reason-code" => text(instance.state_reason.as_ref().map_or("", |r| &r.code)),
        _ => Vec::new(),
    }
}
