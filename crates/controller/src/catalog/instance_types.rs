//! Instance types: real families with EC2's figures, from `instance_types.csv`.
//! <https://docs.aws.amazon.com/ec2/latest/instancetypes/instance-types.html>

use std::sync::LazyLock;

use hearth_api::v1;
use hearth_image::BootMode;

use crate::views::{ARCHITECTURE, HYPERVISOR, ROOT_DEVICE_TYPE, VIRTUALIZATION};

/// What a launch asks for when it names no type.
pub const DEFAULT: &str = "t2.micro";

/// Of what Hearth has for no type.
pub const UNSUPPORTED: &str = "unsupported";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceType {
    pub name: &'static str,
    pub vcpus: u32,
    pub threads_per_core: u32,
    pub memory_mib: u64,
    /// In EC2's words.
    pub network: &'static str,
    pub interfaces: u32,
    pub addresses_per_interface: u32,
    /// GB, all disks together.
    pub instance_store_gb: u32,
    /// Mbit/s; 0 where EC2 names none.
    pub ebs_mbps: u32,
    pub burstable: bool,
    pub current_generation: bool,
}

static TABLE: LazyLock<Vec<InstanceType>> = LazyLock::new(|| {
    let rows = include_str!("instance_types.csv").lines();
    rows.filter(|row| !row.starts_with('#'))
        .filter_map(parse)
        .collect()
});

fn parse(row: &'static str) -> Option<InstanceType> {
    let mut fields = row.split(',');
    let row = InstanceType {
        name: fields.next()?,
        vcpus: fields.next()?.parse().ok()?,
        threads_per_core: fields.next()?.parse().ok()?,
        memory_mib: fields.next()?.parse().ok()?,
        network: fields.next()?,
        interfaces: fields.next()?.parse().ok()?,
        addresses_per_interface: fields.next()?.parse().ok()?,
        instance_store_gb: fields.next()?.parse().ok()?,
        ebs_mbps: fields.next()?.parse().ok()?,
        burstable: fields.next()? == "yes",
        current_generation: fields.next()? == "yes",
    };
    fields.next().is_none().then_some(row)
}

pub fn all() -> &'static [InstanceType] {
    &TABLE
}

pub fn find(name: &str) -> Option<&'static InstanceType> {
    TABLE.iter().find(|kind| kind.name == name)
}

impl InstanceType {
    pub fn info(&self) -> v1::InstanceTypeInfo {
        let signed = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
        v1::InstanceTypeInfo {
            instance_type: self.name.into(),
            current_generation: self.current_generation,
            v_cpu_info: Some(v1::VCpuInfo {
                default_v_cpus: signed(self.vcpus),
                default_cores: signed(self.vcpus / self.threads_per_core.max(1)),
                default_threads_per_core: signed(self.threads_per_core),
            }),
            memory_info: Some(v1::MemoryInfo {
                size_in_mi_b: i64::try_from(self.memory_mib).unwrap_or(i64::MAX),
            }),
            network_info: Some(v1::NetworkInfo {
                network_performance: self.network.into(),
                maximum_network_interfaces: signed(self.interfaces),
                ipv4_addresses_per_interface: signed(self.addresses_per_interface),
                ena_support: UNSUPPORTED.into(),
                efa_supported: false,
                ipv6_supported: false,
                encryption_in_transit_supported: false,
            }),
            instance_storage_supported: self.instance_store_gb > 0,
            instance_storage_info: (self.instance_store_gb > 0).then(|| v1::InstanceStorageInfo {
                total_size_in_gb: self.instance_store_gb.into(),
            }),
            burstable_performance_supported: self.burstable,
            processor_info: Some(v1::ProcessorInfo {
                supported_architectures: vec![ARCHITECTURE.into()],
            }),
            ebs_info: Some(v1::EbsInfo {
                ebs_optimized_info: (self.ebs_mbps > 0).then(|| v1::EbsOptimizedInfo {
                    baseline_bandwidth_in_mbps: signed(self.ebs_mbps),
                }),
                encryption_support: UNSUPPORTED.into(),
                nvme_support: UNSUPPORTED.into(),
            }),
            auto_recovery_supported: true,
            bare_metal: false,
            dedicated_hosts_supported: false,
            free_tier_eligible: false,
            hibernation_supported: false,
            hypervisor: HYPERVISOR.into(),
            supported_boot_modes: [BootMode::LegacyBios, BootMode::Uefi]
                .map(|mode| mode.as_str().to_owned())
                .to_vec(),
            supported_root_device_types: vec![ROOT_DEVICE_TYPE.into()],
            supported_usage_classes: vec!["on-demand".into()],
            supported_virtualization_types: vec![VIRTUALIZATION.into()],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_row_of_the_table_is_read() {
        let rows = include_str!("instance_types.csv")
            .lines()
            .filter(|l| !l.starts_with('#'));
        assert_eq!(rows.count(), all().len());
        let names: HashSet<_> = all().iter().map(|t| t.name).collect();
        assert_eq!(names.len(), all().len());
        for family in ["t2", "t3", "m4", "m5", "c4", "c5", "r4", "r5"] {
            assert!(
                names.iter().any(|n| n.starts_with(&format!("{family}."))),
                "{family}"
            );
        }
    }

    #[test]
    fn the_figures_hang_together() {
        assert!(find(DEFAULT).is_some());
        for kind in all() {
            assert_eq!(kind.vcpus % kind.threads_per_core, 0, "{}", kind.name);
            // Before 2012 EC2 counted in tenths of a GiB, and gave no credits.
            let is_old = kind.name.starts_with("t1.") || kind.name.starts_with("m1.");
            assert!(
                kind.memory_mib >= 512 && (is_old || kind.memory_mib % 128 == 0),
                "{}",
                kind.name
            );
            let has_credits = kind.name.starts_with('t') && !is_old;
            assert_eq!(kind.burstable, has_credits, "{}", kind.name);
        }
        let micro = find("t2.micro").map(|t| (t.vcpus, t.memory_mib));
        assert_eq!(micro, Some((1, 1024)));
    }
}
