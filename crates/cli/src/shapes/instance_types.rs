//! Instance types.

use hearth_api::v1;
use serde::Serialize;

use super::table;
use crate::output::Answer;

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct InstanceTypes {
    instance_types: Vec<InstanceTypeInfo>,
    #[serde(skip_serializing_if = "String::is_empty")]
    next_token: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct InstanceTypeInfo {
    instance_type: String,
    current_generation: bool,
    processor_info: ProcessorInfo,
    v_cpu_info: VCpuInfo,
    memory_info: MemoryInfo,
    instance_storage_supported: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance_storage_info: Option<InstanceStorageInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ebs_info: Option<EbsInfo>,
    network_info: NetworkInfo,
    burstable_performance_supported: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ProcessorInfo {
    supported_architectures: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct VCpuInfo {
    #[serde(rename = "DefaultVCpus")]
    default_vcpus: i32,
    default_cores: i32,
    default_threads_per_core: i32,
}

#[derive(Debug, Serialize)]
struct MemoryInfo {
    #[serde(rename = "SizeInMiB")]
    size_in_mib: i64,
}

#[derive(Debug, Serialize)]
struct InstanceStorageInfo {
    #[serde(rename = "TotalSizeInGB")]
    total_size_in_gb: i64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct EbsInfo {
    ebs_optimized_info: EbsOptimizedInfo,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct EbsOptimizedInfo {
    baseline_bandwidth_in_mbps: i32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkInfo {
    network_performance: String,
    maximum_network_interfaces: i32,
    ipv4_addresses_per_interface: i32,
}

impl From<v1::DescribeInstanceTypesResponse> for InstanceTypes {
    fn from(answer: v1::DescribeInstanceTypesResponse) -> Self {
        let instance_types = answer
            .instance_types
            .into_iter()
            .map(InstanceTypeInfo::from)
            .collect();
        Self {
            instance_types,
            next_token: answer.next_token,
        }
    }
}

impl From<v1::InstanceTypeInfo> for InstanceTypeInfo {
    fn from(t: v1::InstanceTypeInfo) -> Self {
        Self {
            instance_type: t.instance_type,
            current_generation: t.current_generation,
            processor_info: ProcessorInfo {
                supported_architectures: t.supported_architectures,
            },
            v_cpu_info: VCpuInfo {
                default_vcpus: t.default_vcpus,
                default_cores: t.default_cores,
                default_threads_per_core: t.default_threads_per_core,
            },
            memory_info: MemoryInfo {
                size_in_mib: t.memory_mib,
            },
            instance_storage_supported: t.instance_storage_supported,
            instance_storage_info: t.instance_storage_supported.then_some(InstanceStorageInfo {
                total_size_in_gb: t.instance_storage_total_gb,
            }),
            ebs_info: (t.ebs_baseline_bandwidth_mbps != 0).then_some(EbsInfo {
                ebs_optimized_info: EbsOptimizedInfo {
                    baseline_bandwidth_in_mbps: t.ebs_baseline_bandwidth_mbps,
                },
            }),
            network_info: NetworkInfo {
                network_performance: t.network_performance,
                maximum_network_interfaces: t.maximum_network_interfaces,
                ipv4_addresses_per_interface: t.ipv4_addresses_per_interface,
            },
            burstable_performance_supported: t.burstable_performance_supported,
        }
    }
}

impl Answer for InstanceTypes {
    fn table(&self) -> String {
        let row = |t: &InstanceTypeInfo| {
            let storage = t
                .instance_storage_info
                .as_ref()
                .map(|s| format!("{} GB", s.total_size_in_gb));
            [
                t.instance_type.clone(),
                t.v_cpu_info.default_vcpus.to_string(),
                readable_memory(t.memory_info.size_in_mib),
                storage.unwrap_or_else(|| "EBS only".to_owned()),
                t.network_info.network_performance.clone(),
            ]
        };
        let head = ["Type", "vCPUs", "Memory", "Storage", "Network"];
        table::of_rows(
            head,
            self.instance_types.iter().map(row).collect(),
            "No instance types.",
        )
    }
}

/// GiB as EC2's pages write them: `0.5 GiB`, `3.75 GiB`, `16 GiB`.
fn readable_memory(mib: i64) -> String {
    #[allow(clippy::cast_precision_loss)]
    let gib = mib as f64 / 1024.0;
    format!("{gib} GiB")
}
