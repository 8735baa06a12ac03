//! Instance types: real families with EC2's figures, from `instance_types.csv`, and those that an operator defines ([`read`]).
//! Families with processors of graphics, or arrays of gates, are not among them: no host has those for instances.
//! <https://docs.aws.amazon.com/ec2/latest/instancetypes/instance-types.html>

use std::collections::HashMap;
use std::sync::{LazyLock, PoisonError, RwLock};

use hearth_api::v1;
use hearth_image::BootMode;

mod own;
mod store;

pub use own::read;
pub use store::{InstanceStore, MAX_DISKS, Media};

use crate::views::{ARCHITECTURE, HYPERVISOR, ROOT_DEVICE_TYPE, VIRTUALIZATION};

/// What a launch asks for when it names no type.
pub const DEFAULT: &str = "t2.micro";

/// Of what Hearth has for no type.
pub const UNSUPPORTED: &str = "unsupported";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceType {
    pub name: String,
    pub vcpus: u32,
    pub threads_per_core: u32,
    pub memory_mib: u64,
    /// In EC2's words.
    pub network: String,
    pub interfaces: u32,
    pub addresses_per_interface: u32,
    pub store: Option<InstanceStore>,
    /// Mbit/s; 0 where EC2 names none.
    pub ebs_mbps: u32,
    pub burstable: bool,
    pub current_generation: bool,
}

static TABLE: LazyLock<HashMap<&str, InstanceType>> = LazyLock::new(|| {
    let rows = include_str!("instance_types.csv").lines();
    let rows = rows.filter(|row| !row.starts_with('#')).filter_map(parse);
    rows.collect()
});

/// Those of the operator. They are in use for as long as the process lives.
static OWN: RwLock<&[InstanceType]> = RwLock::new(&[]);

fn parse(row: &'static str) -> Option<(&'static str, InstanceType)> {
    let mut fields = row.split(',');
    let name = fields.next()?;
    let row = InstanceType {
        name: name.to_owned(),
        vcpus: fields.next()?.parse().ok()?,
        threads_per_core: fields.next()?.parse().ok()?,
        memory_mib: fields.next()?.parse().ok()?,
        network: fields.next()?.to_owned(),
        interfaces: fields.next()?.parse().ok()?,
        addresses_per_interface: fields.next()?.parse().ok()?,
        store: match fields.next()? {
            "-" => None,
            disks => Some(InstanceStore::parse(disks)?),
        },
        ebs_mbps: fields.next()?.parse().ok()?,
        burstable: fields.next()? == "yes",
        current_generation: fields.next()? == "yes",
    };
    fields.next().is_none().then_some((name, row))
}

/// The operator's types, from now on; those of before are none any more.
pub fn offer(own: Vec<InstanceType>) {
    *OWN.write().unwrap_or_else(PoisonError::into_inner) = own.leak();
}

fn own() -> &'static [InstanceType] {
    *OWN.read().unwrap_or_else(PoisonError::into_inner)
}

/// EC2's and the operator's, in no order.
pub fn all() -> impl Iterator<Item = &'static InstanceType> {
    TABLE.values().chain(own())
}

pub fn find(name: &str) -> Option<&'static InstanceType> {
    TABLE
        .get(name)
        .or_else(|| own().iter().find(|kind| kind.name == name))
}

impl InstanceType {
    pub fn info(&self) -> v1::InstanceTypeInfo {
        let signed = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
        v1::InstanceTypeInfo {
            instance_type: self.name.clone(),
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
                network_performance: self.network.clone(),
                maximum_network_interfaces: signed(self.interfaces),
                ipv4_addresses_per_interface: signed(self.addresses_per_interface),
                ena_support: UNSUPPORTED.into(),
                efa_supported: false,
                ipv6_supported: false,
                encryption_in_transit_supported: false,
            }),
            instance_storage_supported: self.store.is_some(),
            instance_storage_info: self.store.map(InstanceStore::info),
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
    use super::*;

    #[test]
    fn every_row_of_the_table_is_read() {
        let rows = include_str!("instance_types.csv").lines();
        let rows: Vec<&str> = rows.filter(|row| !row.starts_with('#')).collect();
        // Names are distinct, too.
        assert_eq!(rows.len(), TABLE.len());
        for family in [
            "t2", "t3", "m4", "m5", "c4", "c5", "r4", "r5", "m3", "c3", "r3", "i2", "i3", "d2", "h1", "x1",
            "m5d", "c5d", "r5d", "z1d",
        ] {
            let of_family = |name: &&str| name.starts_with(&format!("{family}."));
            assert!(TABLE.keys().any(of_family), "{family}");
        }
    }

    #[test]
    fn the_figures_hang_together() {
        assert!(find(DEFAULT).is_some());
        for kind in TABLE.values() {
            assert_eq!(kind.vcpus % kind.threads_per_core, 0, "{}", kind.name);
            // Before 2012 EC2 counted in tenths of a GiB, and gave no credits.
            let family = kind.name.split('.').next().unwrap_or_default();
            let is_old = ["t1", "m1", "m2", "c1"].contains(&family);
            assert!(
                kind.memory_mib >= 512 && (is_old || kind.memory_mib % 128 == 0),
                "{}",
                kind.name
            );
            let has_credits = kind.name.starts_with('t') && !is_old;
            assert_eq!(kind.burstable, has_credits, "{}", kind.name);
            // The d of a newer family is for its disks.
            let is_named = ["m5", "c5", "r5", "z1"].iter().any(|of| family.starts_with(of));
            if is_named {
                assert_eq!(kind.store.is_some(), family.contains('d'), "{}", kind.name);
            }
        }
        let micro = find("t2.micro").map(|t| (t.vcpus, t.memory_mib));
        assert_eq!(micro, Some((1, 1024)));
    }

    /// As EC2 tells them.
    #[test]
    fn disks_of_types_are_ec2s() {
        for (name, disks) in [
            ("t2.micro", None),
            ("m5.24xlarge", None),
            ("m1.xlarge", Some((4, 420, "hdd", "unsupported", 1680))),
            ("m3.medium", Some((1, 4, "ssd", "unsupported", 4))),
            ("c3.large", Some((2, 16, "ssd", "unsupported", 32))),
            ("d2.8xlarge", Some((24, 2048, "hdd", "unsupported", 49_152))),
            ("h1.16xlarge", Some((8, 2000, "hdd", "unsupported", 16_000))),
            ("x1.32xlarge", Some((2, 1920, "ssd", "unsupported", 3840))),
            ("i3.16xlarge", Some((8, 1900, "ssd", "required", 15_200))),
            ("m5d.large", Some((1, 75, "ssd", "required", 75))),
            ("z1d.12xlarge", Some((2, 900, "ssd", "required", 1800))),
        ] {
            let info = find(name).unwrap().info();
            assert_eq!(info.instance_storage_supported, disks.is_some(), "{name}");
            let told = info.instance_storage_info.map(|told| {
                let disk = told.disks.first().cloned().unwrap();
                (
                    disk.count,
                    disk.size_in_gb,
                    disk.r#type,
                    told.nvme_support,
                    told.total_size_in_gb,
                )
            });
            let told = told.as_ref().map(|(count, size, kind, nvme, total)| {
                (*count, *size, kind.as_str(), nvme.as_str(), *total)
            });
            assert_eq!(told, disks, "{name}");
        }
    }
}
