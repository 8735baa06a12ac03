//! DescribeNetworkInterfaces.

use std::sync::Arc;

use hearth_api::filter::{Filters, Values};
use hearth_api::page::{Page, paginate, refuse_page_of_ids};
use hearth_api::v1::{
    DescribeNetworkInterfacesRequest, DescribeNetworkInterfacesResult, NetworkInterface,
    network_interfaces_server,
};
use hearth_api::{ApiError, Kind};
use tonic::{Request, Response, Status};

use super::{answer, input};
use crate::app::App;
use crate::{state, views};

const FILTERS: &[&str] = &[
    "addresses.association.public-ip",
    "addresses.primary",
    "addresses.private-ip-address",
    "association.public-ip",
    "attachment.attachment-id",
    "attachment.delete-on-termination",
    "attachment.device-index",
    "attachment.instance-id",
    "attachment.instance-owner-id",
    "attachment.status",
    "availability-zone",
    "description",
    "group-id",
    "group-name",
    "interface-type",
    "mac-address",
    "network-interface-id",
    "owner-id",
    "private-dns-name",
    "private-ip-address",
    "requester-managed",
    "source-dest-check",
    "status",
    "subnet-id",
    "tag",
    "vpc-id",
];

pub(super) struct NetworkInterfaces(pub(super) Arc<App>);

#[tonic::async_trait]
impl network_interfaces_server::NetworkInterfaces for NetworkInterfaces {
    async fn describe_network_interfaces(
        &self,
        request: Request<DescribeNetworkInterfacesRequest>,
    ) -> Result<Response<DescribeNetworkInterfacesResult>, Status> {
        answer(describe(&self.0, &request.into_inner()))
    }
}

fn describe(
    app: &App,
    request: &DescribeNetworkInterfacesRequest,
) -> Result<DescribeNetworkInterfacesResult, ApiError> {
    let ids = &request.network_interface_ids;
    let page = Page::new(request.max_results, &request.next_token);
    refuse_page_of_ids(ids, page, "networkInterfaceIdSet")?;
    let filters = Filters::new(&request.filters, FILTERS)?;
    let state = app.state();
    input::all_known(Kind::NetworkInterface, ids, |id| {
        state.get::<state::NetworkInterface>(id).is_some()
    })?;
    let wanted = state
        .all::<state::NetworkInterface>()
        .filter(|row| ids.is_empty() || ids.contains(&row.id));
    let tell = |row: &state::NetworkInterface| {
        let told = views::network_interface(&state, &app.cloud, row);
        filters
            .matches(&told.tag_set, |name| values(&told, name))
            .then_some(told)
    };
    let (network_interfaces, next_token) = paginate(wanted, page, |row| row.id.clone(), tell)?;
    Ok(DescribeNetworkInterfacesResult {
        network_interfaces,
        next_token,
    })
}

fn values<'i>(interface: &'i NetworkInterface, name: &str) -> Values<'i> {
    let groups = || interface.groups.iter();
    let value = match name {
        "addresses.association.public-ip" | "association.public-ip" => {
            let association = interface.association.iter();
            return association.map(|own| own.public_ip.as_str().into()).collect();
        }
        // The primary one is the only one.
        "addresses.primary" | "source-dest-check" => "true".into(),
        "requester-managed" => "false".into(),
        "addresses.private-ip-address" | "private-ip-address" => interface.private_ip_address.as_str().into(),
        "availability-zone" => interface.availability_zone.as_str().into(),
        "description" => interface.description.as_str().into(),
        "group-id" => return groups().map(|group| group.group_id.as_str().into()).collect(),
        "group-name" => return groups().map(|group| group.group_name.as_str().into()).collect(),
        "interface-type" => interface.interface_type.as_str().into(),
        "mac-address" => interface.mac_address.as_str().into(),
        "network-interface-id" => interface.network_interface_id.as_str().into(),
        "owner-id" => interface.owner_id.as_str().into(),
        "private-dns-name" => interface.private_dns_name.as_str().into(),
        "status" => interface.status.as_str().into(),
        "subnet-id" => interface.subnet_id.as_str().into(),
        "vpc-id" => interface.vpc_id.as_str().into(),
        _ => {
            let attachment = interface.attachment.iter();
            return attachment
                .map(|attachment| match name {
                    "attachment.attachment-id" => attachment.attachment_id.as_str().into(),
                    "attachment.delete-on-termination" => attachment.delete_on_termination.to_string().into(),
                    "attachment.device-index" => attachment.device_index.to_string().into(),
                    "attachment.instance-id" => attachment.instance_id.as_str().into(),
                    "attachment.instance-owner-id" => attachment.instance_owner_id.as_str().into(),
                    _ => attachment.status.as_str().into(),
                })
                .collect();
        }
    };
    vec![value]
}
