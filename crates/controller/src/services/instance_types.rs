//! DescribeInstanceTypes.

use hearth_api::filter::Filters;
use hearth_api::page::{Page, paginate, refuse_page_of_ids};
use hearth_api::v1::{
    DescribeInstanceTypesRequest, DescribeInstanceTypesResponse, InstanceTypeInfo, instance_types_server,
};
use hearth_api::{ApiError, ErrorCode};
use tonic::{Request, Response, Status};

use super::answer;
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

pub(super) struct InstanceTypes;

#[tonic::async_trait]
impl instance_types_server::InstanceTypes for InstanceTypes {
    async fn describe_instance_types(
        &self,
        request: Request<DescribeInstanceTypesRequest>,
    ) -> Result<Response<DescribeInstanceTypesResponse>, Status> {
        answer(describe(&request.into_inner()))
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
