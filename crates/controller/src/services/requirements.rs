//! GetInstanceTypesFromInstanceRequirements: the types that have what is asked for.
//! <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_InstanceRequirementsRequest.html>

use hearth_api::ApiError;
use hearth_api::filter::Pattern;
use hearth_api::page::{Page, paginate};
use hearth_api::v1::*;

use crate::catalog::instance_types::{self, InstanceStore, InstanceType};
use crate::views::{ARCHITECTURE, VIRTUALIZATION};

/// Types of one answer.
const MOST: i32 = 1000;
/// Of names of types.
const WILDCARDS: &str = "?\\";

pub(super) fn types(
    request: &GetInstanceTypesFromInstanceRequirementsRequest,
) -> Result<GetInstanceTypesFromInstanceRequirementsResult, ApiError> {
    let wanted = request
        .instance_requirements
        .as_ref()
        .ok_or_else(|| ApiError::missing("InstanceRequirements"))?;
    let wanted = Wanted::of(wanted)?;
    let architectures = ["i386", ARCHITECTURE, "arm64", "x86_64_mac", "arm64_mac"];
    let among = |parameter, given: &[String], known: &[&str], own: &str| {
        check_all(parameter, given, known)?;
        match given.is_empty() {
            true => Err(ApiError::missing(parameter)),
            false => Ok(given.iter().any(|one| one == own)),
        }
    };
    let fits = among(
        "ArchitectureType",
        &request.architecture_types,
        &architectures,
        ARCHITECTURE,
    )? & among(
        "VirtualizationType",
        &request.virtualization_types,
        &[VIRTUALIZATION, "paravirtual"],
        VIRTUALIZATION,
    )?;
    let mut names: Vec<&str> = instance_types::all()
        .filter(|kind| fits && wanted.has(kind))
        .map(|kind| kind.name.as_str())
        .collect();
    names.sort_unstable();
    let max_results = Some(request.max_results).filter(|max| *max != 0);
    let page = Page::of_at_most(MOST, max_results, &request.next_token);
    let tell = |name: &str| {
        Some(InstanceTypeInfoFromInstanceRequirements {
            instance_type: name.to_owned(),
        })
    };
    let (instance_types, next_token) = paginate(names, page, |name| (*name).to_owned(), tell)?;
    Ok(GetInstanceTypesFromInstanceRequirementsResult {
        instance_types,
        next_token,
    })
}

/// # Errors
/// One is none of those that EC2 has.
fn check_all(parameter: &str, given: &[String], known: &[&str]) -> Result<(), ApiError> {
    match given.iter().find(|one| !known.contains(&one.as_str())) {
        None => Ok(()),
        Some(other) => {
            let expected = format!("Expecting {}.", known.join(", "));
            Err(ApiError::invalid_value(parameter, other, expected))
        }
    }
}

/// Both ends are included.
#[derive(Debug, Clone, Copy)]
struct Range {
    min: f64,
    max: f64,
}

impl Range {
    fn new(parameter: &str, min: Option<f64>, max: Option<f64>) -> Result<Self, ApiError> {
        let (min, max) = (min.unwrap_or(0.0), max.unwrap_or(f64::INFINITY));
        if !(min >= 0.0 && max >= min) {
            let given = format!("{min} to {max}");
            return Err(ApiError::invalid_value(
                parameter,
                given,
                "Expecting Min from 0 to Max.",
            ));
        }
        Ok(Self { min, max })
    }

    fn has(self, value: f64) -> bool {
        (self.min..=self.max).contains(&value)
    }
}

/// Whether types may, must or must not have something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Having {
    Included,
    Required,
    Excluded,
}

impl Having {
    fn new(parameter: &str, given: &str, usual: Self) -> Result<Self, ApiError> {
        Ok(match given {
            "" => usual,
            "included" => Self::Included,
            "required" => Self::Required,
            "excluded" => Self::Excluded,
            other => {
                let expected = "Expecting included, required or excluded.";
                return Err(ApiError::invalid_value(parameter, other, expected));
            }
        })
    }

    fn admits(self, has: bool) -> bool {
        match self {
            Self::Included => true,
            Self::Required => has,
            Self::Excluded => !has,
        }
    }
}

/// Requirements that make sense by themselves.
struct Wanted {
    vcpus: Range,
    memory_mib: Range,
    memory_per_vcpu: Range,
    interfaces: Range,
    storage_gb: Range,
    ebs_mbps: Range,
    storage: Having,
    /// `hdd`, `ssd`; empty: both.
    storage_types: Vec<String>,
    burstable: Having,
    /// Whether current and previous ones are admitted.
    generations: (bool, bool),
    allowed: Option<Vec<Pattern>>,
    excluded: Vec<Pattern>,
    /// Whether something is required that no type has.
    nothing: bool,
}

macro_rules! range {
    ($parameter:literal, $given:expr) => {{
        let given = $given.as_ref();
        let (min, max) = given.map_or((None, None), |range| (range.min, range.max));
        Range::new($parameter, min.map(f64::from), max.map(f64::from))
    }};
}

impl Wanted {
    fn of(wanted: &InstanceRequirementsRequest) -> Result<Self, ApiError> {
        refuse(wanted)?;
        for (parameter, range) in [
            ("VCpuCount.Min", wanted.v_cpu_count.map(|range| range.min)),
            ("MemoryMiB.Min", wanted.memory_mi_b.map(|range| range.min)),
        ] {
            range.flatten().ok_or_else(|| ApiError::missing(parameter))?;
        }
        let accelerators = range!("AcceleratorCount", wanted.accelerator_count)?;
        check_all(
            "AcceleratorType",
            &wanted.accelerator_types,
            &["gpu", "fpga", "inference", "media"],
        )?;
        check_all("LocalStorageType", &wanted.local_storage_types, &["hdd", "ssd"])?;
        check_all(
            "InstanceGeneration",
            &wanted.instance_generations,
            &["current", "previous"],
        )?;
        let bare_metal = Having::new("BareMetal", &wanted.bare_metal, Having::Excluded)?;
        let generation = |name| {
            let given = &wanted.instance_generations;
            given.is_empty() || given.iter().any(|one| one == name)
        };
        let allowed = patterns("AllowedInstanceType", &wanted.allowed_instance_types)?;
        let excluded = patterns("ExcludedInstanceType", &wanted.excluded_instance_types)?;
        if !allowed.is_empty() && !excluded.is_empty() {
            return Err(ApiError::combination(
                "AllowedInstanceTypes",
                "ExcludedInstanceTypes",
            ));
        }
        Ok(Self {
            vcpus: range!("VCpuCount", wanted.v_cpu_count)?,
            memory_mib: range!("MemoryMiB", wanted.memory_mi_b)?,
            memory_per_vcpu: range!("MemoryGiBPerVCpu", wanted.memory_gi_b_per_v_cpu)?,
            interfaces: range!("NetworkInterfaceCount", wanted.network_interface_count)?,
            storage_gb: range!("TotalLocalStorageGB", wanted.total_local_storage_gb)?,
            ebs_mbps: range!("BaselineEbsBandwidthMbps", wanted.baseline_ebs_bandwidth_mbps)?,
            storage: Having::new("LocalStorage", &wanted.local_storage, Having::Included)?,
            storage_types: wanted.local_storage_types.clone(),
            burstable: Having::new(
                "BurstablePerformance",
                &wanted.burstable_performance,
                Having::Excluded,
            )?,
            generations: (generation("current"), generation("previous")),
            allowed: (!allowed.is_empty()).then_some(allowed),
            excluded,
            nothing: !bare_metal.admits(false)
                || !accelerators.has(0.0)
                || !wanted.accelerator_types.is_empty()
                || wanted.require_hibernate_support
                || wanted.require_encryption_in_transit,
        })
    }

    fn has(&self, kind: &InstanceType) -> bool {
        let memory_mib = f64::from(u32::try_from(kind.memory_mib).unwrap_or(u32::MAX));
        let vcpus = f64::from(kind.vcpus);
        let is_named = |pattern: &Pattern| pattern.matches(&kind.name);
        let (current, previous) = self.generations;
        let storage_gb = kind.store.map_or(0, InstanceStore::total_gb);
        let storage_gb = f64::from(u32::try_from(storage_gb).unwrap_or(u32::MAX));
        let is_of_type = |store: InstanceStore| {
            self.storage_types.is_empty() || self.storage_types.iter().any(|of| of == store.kind())
        };
        !self.nothing
            && self.vcpus.has(vcpus)
            && self.memory_mib.has(memory_mib)
            && self.memory_per_vcpu.has(memory_mib / 1024.0 / vcpus)
            && self.interfaces.has(kind.interfaces.into())
            && self.storage_gb.has(storage_gb)
            && self.ebs_mbps.has(kind.ebs_mbps.into())
            && self.storage.admits(kind.store.is_some())
            && kind.store.is_none_or(is_of_type)
            && self.burstable.admits(kind.burstable)
            && (if kind.current_generation {
                current
            } else {
                previous
            })
            && self
                .allowed
                .as_ref()
                .is_none_or(|allowed| allowed.iter().any(is_named))
            && !self.excluded.iter().any(is_named)
    }
}

/// # Errors
/// A name of types has another wildcard than `*`.
fn patterns(parameter: &str, names: &[String]) -> Result<Vec<Pattern>, ApiError> {
    let pattern = |name: &String| {
        let pattern = Pattern::new(name).filter(|_| !name.contains(|c| WILDCARDS.contains(c)));
        let expected = "Expecting a type's name, such as m5.large or m5.*.";
        pattern.ok_or_else(|| ApiError::invalid_value(parameter, name, expected))
    };
    names.iter().map(pattern).collect()
}

/// # Errors
/// What is asked for that the catalogue does not tell.
fn refuse(wanted: &InstanceRequirementsRequest) -> Result<(), ApiError> {
    const PRICE: &str = "Nothing has a price here; leave it out.";
    for (parameter, is_given, why) in [
        (
            "CpuManufacturers",
            !wanted.cpu_manufacturers.is_empty(),
            "Instances of all types run on the processor that their host has; leave it out.",
        ),
        (
            "NetworkBandwidthGbps",
            wanted.network_bandwidth_gbps.is_some(),
            "The bandwidth of most types is no figure; leave it out.",
        ),
        (
            "SpotMaxPricePercentageOverLowestPrice",
            wanted.spot_max_price_percentage_over_lowest_price.is_some(),
            PRICE,
        ),
        (
            "OnDemandMaxPricePercentageOverLowestPrice",
            wanted.on_demand_max_price_percentage_over_lowest_price.is_some(),
            PRICE,
        ),
        (
            "MaxSpotPriceAsPercentageOfOptimalOnDemandPrice",
            wanted
                .max_spot_price_as_percentage_of_optimal_on_demand_price
                .is_some(),
            PRICE,
        ),
    ] {
        if is_given {
            return Err(ApiError::invalid_value(parameter, "what is given", why));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut InstanceRequirementsRequest);

    fn found(change: impl FnOnce(&mut InstanceRequirementsRequest)) -> Result<Vec<String>, String> {
        let mut wanted = InstanceRequirementsRequest {
            v_cpu_count: Some(VCpuCountRangeRequest {
                min: Some(2),
                max: Some(2),
            }),
            memory_mi_b: Some(MemoryMiBRequest {
                min: Some(0),
                max: None,
            }),
            ..Default::default()
        };
        change(&mut wanted);
        let request = GetInstanceTypesFromInstanceRequirementsRequest {
            architecture_types: vec!["x86_64".into()],
            virtualization_types: vec!["hvm".into()],
            instance_requirements: Some(wanted),
            ..Default::default()
        };
        let answer = types(&request).map_err(|error| error.to_string())?;
        Ok(answer
            .instance_types
            .into_iter()
            .map(|one| one.instance_type)
            .collect())
    }

    fn count(change: impl FnOnce(&mut InstanceRequirementsRequest)) -> usize {
        found(change).unwrap().len()
    }

    #[test]
    fn types_have_what_is_asked_for() {
        let plain = found(|_| {}).unwrap();
        assert!(plain.contains(&"m5.large".to_owned()) && !plain.iter().any(|name| name.starts_with('t')));
        let burstable = found(|r| r.burstable_performance = "required".into()).unwrap();
        assert!(!burstable.is_empty() && burstable.iter().all(|name| name.starts_with('t')));
        assert_eq!(
            count(|r| r.burstable_performance = "included".into()),
            plain.len() + burstable.len()
        );
        let stored = found(|r| r.local_storage = "required".into()).unwrap();
        let bare = found(|r| r.local_storage = "excluded".into()).unwrap();
        assert_eq!(stored.len() + bare.len(), plain.len());
        let stored_on = |kind: &str| {
            let kind = kind.to_owned();
            found(|r| {
                r.local_storage = "required".into();
                r.local_storage_types = vec![kind];
            })
            .unwrap()
        };
        let (hdd, ssd) = (stored_on("hdd"), stored_on("ssd"));
        assert!(hdd.contains(&"m1.large".to_owned()) && ssd.contains(&"m5d.large".to_owned()));
        assert_eq!(hdd.len() + ssd.len(), stored.len());
        assert_eq!(
            count(|r| r.local_storage_types = vec!["hdd".into(), "ssd".into()]),
            plain.len()
        );
        let current = count(|r| r.instance_generations = vec!["current".into()]);
        let previous = count(|r| r.instance_generations = vec!["previous".into()]);
        assert_eq!(current + previous, plain.len());
        assert_eq!(
            found(|r| r.allowed_instance_types = vec!["m5.*".into()]),
            Ok(vec!["m5.large".into()])
        );
        assert_eq!(
            count(|r| r.excluded_instance_types = vec!["m5.large".into()]),
            plain.len() - 1
        );
        let per_vcpu = |min, max| {
            move |r: &mut InstanceRequirementsRequest| {
                r.memory_gi_b_per_v_cpu = Some(MemoryGiBPerVCpuRequest { min, max });
            }
        };
        let lean = count(per_vcpu(None, Some(3.9)));
        assert!(lean > 0 && lean + count(per_vcpu(Some(3.9), None)) == plain.len());
        assert_eq!(count(|r| r.bare_metal = "required".into()), 0);
        assert_eq!(count(|r| r.accelerator_types = vec!["gpu".into()]), 0);
        assert_eq!(count(|r| r.require_hibernate_support = true), 0);
        let none = AcceleratorCountRequest {
            min: None,
            max: Some(0),
        };
        assert_eq!(count(|r| r.accelerator_count = Some(none)), plain.len());
    }

    #[test]
    fn what_the_catalogue_does_not_tell_is_refused() {
        let cases: [(Change, &str); 9] = [
            (|r| r.v_cpu_count = None, "VCpuCount.Min"),
            (
                |r| {
                    r.memory_mi_b = Some(MemoryMiBRequest {
                        min: Some(2),
                        max: Some(1),
                    })
                },
                "Min from 0 to Max",
            ),
            (
                |r| {
                    r.memory_mi_b = Some(MemoryMiBRequest {
                        min: Some(-2),
                        max: None,
                    })
                },
                "Min from 0 to Max",
            ),
            (|r| r.bare_metal = "yes".into(), "Expecting included"),
            (
                |r| r.cpu_manufacturers = vec!["intel".into()],
                "processor that their host has",
            ),
            (
                |r| r.local_storage_types = vec!["tape".into()],
                "Expecting hdd, ssd.",
            ),
            (
                |r| r.network_bandwidth_gbps = Some(NetworkBandwidthGbpsRequest::default()),
                "no figure",
            ),
            (
                |r| r.spot_max_price_percentage_over_lowest_price = Some(1),
                "price",
            ),
            (|r| r.allowed_instance_types = vec!["m5.?".into()], "m5.large"),
        ];
        for (change, why) in cases {
            let refused = found(change).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }
}
