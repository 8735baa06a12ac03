//! DescribeNetworkInterfaces.

use std::sync::Arc;

use hearth_api::filter::{Filters, Known, no};
use hearth_api::known;
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

pub(super) const FILTERS: Known<NetworkInterface> = known! {
    tags: |item| &item.tag_set;
    "addresses.association.owner-id" => private_ip_addresses.association.ip_owner_id,
    "addresses.association.public-ip" => private_ip_addresses.association.public_ip,
    "addresses.primary" => private_ip_addresses.primary,
    "addresses.private-ip-address" => private_ip_addresses.private_ip_address,
    "association.allocation-id" => none,
    "association.association-id" => none,
    "association.ip-owner-id" => association.ip_owner_id,
    "association.public-dns-name" => association.public_dns_name,
    "association.public-ip" => association.public_ip,
    "attachment.attach-time" => attachment.attach_time,
    "attachment.attachment-id" => attachment.attachment_id,
    "attachment.delete-on-termination" => attachment.delete_on_termination,
    "attachment.device-index" => attachment.device_index,
    "attachment.instance-id" => attachment.instance_id,
    "attachment.instance-owner-id" => attachment.instance_owner_id,
    "attachment.status" => attachment.status,
    "availability-zone" => availability_zone,
    "availability-zone-id" => availability_zone_id,
    "description" => description,
    "group-id" => groups.group_id,
    "group-name" => groups.group_name,
    "interface-type" => interface_type,
    "ipv6-addresses.ipv6-address" => none,
    "mac-address" => mac_address,
    "network-interface-id" => network_interface_id,
    "operator.managed" => (no),
    "operator.principal" => none,
    "owner-id" => owner_id,
    "private-dns-name" => private_dns_name,
    "private-ip-address" => private_ip_address,
    "requester-id" => none,
    "requester-managed" => requester_managed,
    "source-dest-check" => source_dest_check,
    "status" => status,
    "subnet-id" => subnet_id,
    "vpc-id" => vpc_id,
};

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
    let filters = Filters::new(&request.filters, &FILTERS)?;
    let state = app.state();
    input::all_known(Kind::NetworkInterface, ids, |id| {
        state.get::<state::NetworkInterface>(id).is_some()
    })?;
    let wanted = state
        .all::<state::NetworkInterface>()
        .filter(|row| ids.is_empty() || ids.contains(&row.id));
    let tell = |row: &state::NetworkInterface| {
        let told = views::network_interface(&state, row);
        filters.matches(&told).then_some(told)
    };
    let (network_interfaces, next_token) = paginate(wanted, page, |row| row.id.clone(), tell)?;
    Ok(DescribeNetworkInterfacesResult {
        network_interfaces,
        next_token,
    })
}
