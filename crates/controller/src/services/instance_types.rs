//! DescribeInstanceTypes.

use std::sync::Arc;

use hearth_api::filter::{Filters, Known, Values};
use hearth_api::known;
use hearth_api::page::{Page, paginate, refuse_page_of_ids};
use hearth_api::v1::{
    DescribeInstanceTypeOfferingsRequest, DescribeInstanceTypeOfferingsResult, DescribeInstanceTypesRequest,
    DescribeInstanceTypesResponse, GetInstanceTypesFromInstanceRequirementsRequest,
    GetInstanceTypesFromInstanceRequirementsResult, InstanceTypeInfo, InstanceTypeOffering,
    instance_types_server,
};
use hearth_api::{ApiError, ErrorCode};
use tonic::{Request, Response, Status};

use super::{answer, requirements};
use crate::app::App;
use crate::catalog::instance_types::{self, UNSUPPORTED};
use hearth_api::zones;

pub(super) const FILTERS: Known<InstanceTypeInfo> = known! {
    "auto-recovery-supported" => auto_recovery_supported,
    "bare-metal" => bare_metal,
    "burstable-performance-supported" => burstable_performance_supported,
    "current-generation" => current_generation,
    "dedicated-hosts-supported" => dedicated_hosts_supported,
    "ebs-info.ebs-optimized-info.baseline-bandwidth-in-mbps" => ebs_info.ebs_optimized_info.baseline_bandwidth_in_mbps,
    "ebs-info.encryption-support" => ebs_info.encryption_support,
    "ebs-info.nvme-support" => ebs_info.nvme_support,
    "free-tier-eligible" => free_tier_eligible,
    "hibernation-supported" => hibernation_supported,
    "hypervisor" => hypervisor,
    "instance-storage-info.disk.count" => instance_storage_info.disks.count,
    "instance-storage-info.disk.size-in-gb" => instance_storage_info.disks.size_in_gb,
    "instance-storage-info.disk.type" => instance_storage_info.disks.r#type,
    "instance-storage-info.encryption-support" => instance_storage_info.encryption_support,
    "instance-storage-info.nvme-support" => instance_storage_info.nvme_support,
    "instance-storage-info.total-size-in-gb" => instance_storage_info.total_size_in_gb,
    "instance-storage-supported" => instance_storage_supported,
    "instance-type" => instance_type,
    "memory-info.size-in-mib" => memory_info.size_in_mi_b,
    "network-info.bandwidth-weightings" => none,
    "network-info.efa-info.maximum-efa-interfaces" => none,
    "network-info.efa-supported" => network_info.efa_supported,
    "network-info.ena-support" => network_info.ena_support,
    "network-info.encryption-in-transit-supported" => network_info.encryption_in_transit_supported,
    "network-info.flexible-ena-queues-support" => (unsupported),
    "network-info.ipv4-addresses-per-interface" => network_info.ipv4_addresses_per_interface,
    "network-info.ipv6-addresses-per-interface" => none,
    "network-info.ipv6-supported" => network_info.ipv6_supported,
    "network-info.maximum-network-interfaces" => network_info.maximum_network_interfaces,
    "network-info.network-performance" => network_info.network_performance,
    "nitro-enclaves-support" => (unsupported),
    "nitro-tpm-info.supported-versions" => none,
    "nitro-tpm-support" => (unsupported),
    "processor-info.supported-architecture" => processor_info.supported_architectures,
    "processor-info.supported-features" => none,
    "supported-boot-mode" => supported_boot_modes,
    "supported-root-device-type" => supported_root_device_types,
    "supported-usage-class" => supported_usage_classes,
    "supported-virtualization-type" => supported_virtualization_types,
    "vcpu-info.default-cores" => v_cpu_info.default_cores,
    "vcpu-info.default-threads-per-core" => v_cpu_info.default_threads_per_core,
    "vcpu-info.default-vcpus" => v_cpu_info.default_v_cpus,
    // CPU options cannot be chosen.
    "vcpu-info.valid-cores" => v_cpu_info.default_cores,
    "vcpu-info.valid-threads-per-core" => v_cpu_info.default_threads_per_core,
};
pub(super) const OFFERING_FILTERS: Known<InstanceTypeOffering> = known! {
    "instance-type" => instance_type,
    "location" => location,
};

fn unsupported<T>(_: &T, into: &mut Values<'_>) {
    into.push(UNSUPPORTED.into());
}

pub(super) struct InstanceTypes(pub(super) Arc<App>);

#[tonic::async_trait]
impl instance_types_server::InstanceTypes for InstanceTypes {
    async fn describe_instance_types(
        &self,
        request: Request<DescribeInstanceTypesRequest>,
    ) -> Result<Response<DescribeInstanceTypesResponse>, Status> {
        answer(describe(&request.into_inner()))
    }

    async fn describe_instance_type_offerings(
        &self,
        request: Request<DescribeInstanceTypeOfferingsRequest>,
    ) -> Result<Response<DescribeInstanceTypeOfferingsResult>, Status> {
        answer(offerings(&self.0, &request.into_inner()))
    }

    async fn get_instance_types_from_instance_requirements(
        &self,
        request: Request<GetInstanceTypesFromInstanceRequirementsRequest>,
    ) -> Result<Response<GetInstanceTypesFromInstanceRequirementsResult>, Status> {
        answer(requirements::types(&request.into_inner()))
    }
}

fn describe(request: &DescribeInstanceTypesRequest) -> Result<DescribeInstanceTypesResponse, ApiError> {
    let names = &request.instance_types;
    let page = Page::new(request.max_results, &request.next_token);
    refuse_page_of_ids(names, page, "instanceTypes")?;
    let filters = Filters::new(&request.filters, &FILTERS)?;
    let unknown: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .filter(|name| instance_types::find(name).is_none())
        .collect();
    if !unknown.is_empty() {
        return Err(ApiError::new(
            ErrorCode::InvalidInstanceType,
            format!(
                "The following supplied instance types do not exist: [{}]",
                unknown.join(", ")
            ),
        ));
    }
    let mut infos: Vec<InstanceTypeInfo> = instance_types::all()
        .map(instance_types::InstanceType::info)
        .filter(|info| names.is_empty() || names.contains(&info.instance_type))
        .filter(|info| filters.matches(info))
        .collect();
    infos.sort_by(|a, b| a.instance_type.cmp(&b.instance_type));
    let (instance_types, next_token) = paginate(infos, page, |i| i.instance_type.clone(), Some)?;
    Ok(DescribeInstanceTypesResponse {
        instance_types,
        next_token,
    })
}

fn offerings(
    app: &App,
    request: &DescribeInstanceTypeOfferingsRequest,
) -> Result<DescribeInstanceTypeOfferingsResult, ApiError> {
    let page = Page::new(request.max_results, &request.next_token);
    let filters = Filters::new(&request.filters, &OFFERING_FILTERS)?;
    let region = app.region();
    let of_region = app.state().region(&region).map(|region| region.zones.clone());
    let of_region = of_region.unwrap_or_default();
    let (location_type, locations) = match request.location_type.as_str() {
        "" | "region" => ("region", vec![region]),
        "availability-zone" => ("availability-zone", of_region),
        "availability-zone-id" => {
            let ids = of_region.iter().map(|zone| zones::id(zone));
            ("availability-zone-id", ids.collect())
        }
        other => {
            return Err(ApiError::invalid_value(
                "LocationType",
                other,
                "Expecting region, availability-zone or availability-zone-id.",
            ));
        }
    };
    let mut names: Vec<&str> = instance_types::all().map(|kind| kind.name.as_str()).collect();
    names.sort_unstable();
    let offerings = locations.iter().flat_map(|location| {
        names.iter().map(move |name| InstanceTypeOffering {
            instance_type: (*name).to_owned(),
            location_type: location_type.to_owned(),
            location: location.clone(),
        })
    });
    let offerings = offerings.filter(|offering| filters.matches(offering));
    let mut offerings: Vec<_> = offerings.collect();
    // By what pages go on from.
    let key = |offering: &InstanceTypeOffering| format!("{} {}", offering.location, offering.instance_type);
    offerings.sort_by_key(key);
    let (instance_type_offerings, next_token) = paginate(offerings, page, key, Some)?;
    Ok(DescribeInstanceTypeOfferingsResult {
        instance_type_offerings,
        next_token,
    })
}
