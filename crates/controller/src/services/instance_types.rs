//! DescribeInstanceTypes.

use std::sync::Arc;

use hearth_api::filter::Filters;
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
use crate::catalog::instance_types;

const FILTERS: &[&str] = &[
    "burstable-performance-supported",
    "current-generation",
    "instance-storage-supported",
    "instance-type",
    "memory-info.size-in-mib",
    "network-info.network-performance",
    "processor-info.supported-architecture",
    "vcpu-info.default-cores",
    "vcpu-info.default-threads-per-core",
    "vcpu-info.default-vcpus",
];

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
    let filters = Filters::new(&request.filters, FILTERS)?;
    let unknown: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .filter(|name| instance_types::find(name).is_none())
        .collect();
    if !unknown.is_empty() {
        return Err(ApiError::new(
            ErrorCode::InvalidInstanceType,
            format!(
                "The following supplied instance types do not exist: [{}]. Without names all are listed.",
                unknown.join(", ")
            ),
        ));
    }
    let mut infos: Vec<InstanceTypeInfo> = instance_types::all()
        .iter()
        .map(instance_types::InstanceType::info)
        .filter(|info| names.is_empty() || names.contains(&info.instance_type))
        .filter(|info| filters.matches(&[], |name| vec![value(info, name).into()]))
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
    let filters = Filters::new(&request.filters, &["instance-type", "location"])?;
    let (location_type, locations) = match request.location_type.as_str() {
        "" | "region" => ("region", std::slice::from_ref(&app.config.region)),
        "availability-zone" => ("availability-zone", app.config.zones.as_slice()),
        other => {
            return Err(ApiError::invalid_value(
                "LocationType",
                other,
                "Expecting region or availability-zone.",
            ));
        }
    };
    let mut names: Vec<&str> = instance_types::all().iter().map(|kind| kind.name).collect();
    names.sort_unstable();
    let offerings = locations.iter().flat_map(|location| {
        names.iter().map(move |name| InstanceTypeOffering {
            instance_type: (*name).to_owned(),
            location_type: location_type.to_owned(),
            location: location.clone(),
        })
    });
    let mut offerings: Vec<_> = offerings
        .filter(|offering| {
            filters.matches(&[], |name| match name {
                "location" => vec![offering.location.as_str().into()],
                _ => vec![offering.instance_type.as_str().into()],
            })
        })
        .collect();
    // By what pages go on from.
    let key = |offering: &InstanceTypeOffering| format!("{} {}", offering.location, offering.instance_type);
    offerings.sort_by_key(key);
    let (instance_type_offerings, next_token) = paginate(offerings, page, key, Some)?;
    Ok(DescribeInstanceTypeOfferingsResult {
        instance_type_offerings,
        next_token,
    })
}

fn value(info: &InstanceTypeInfo, name: &str) -> String {
    let cpus = info.v_cpu_info.unwrap_or_default();
    match name {
        "burstable-performance-supported" => info.burstable_performance_supported.to_string(),
        "current-generation" => info.current_generation.to_string(),
        "instance-storage-supported" => info.instance_storage_supported.to_string(),
        "memory-info.size-in-mib" => info.memory_info.unwrap_or_default().size_in_mi_b.to_string(),
        "network-info.network-performance" => info
            .network_info
            .as_ref()
            .map_or_else(String::new, |network| network.network_performance.clone()),
        "processor-info.supported-architecture" => info
            .processor_info
            .as_ref()
            .map_or_else(String::new, |processor| {
                processor.supported_architectures.concat()
            }),
        "vcpu-info.default-cores" => cpus.default_cores.to_string(),
        "vcpu-info.default-threads-per-core" => cpus.default_threads_per_core.to_string(),
        "vcpu-info.default-vcpus" => cpus.default_v_cpus.to_string(),
        _ => info.instance_type.clone(),
    }
}
