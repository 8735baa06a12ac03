//! What Linux makes of CPUID.

use hearth_vmm::cpu::{CpuSpec, Model};

use super::harness::Linux;

/// The values of `key` in /proc/cpuinfo, one for each processor.
fn values<'a>(cpuinfo: &'a str, key: &str) -> Vec<&'a str> {
    cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(found, _)| found.trim() == key)
        .map(|(_, value)| value.trim())
        .collect()
}

#[test]
fn four_vcpus_are_two_cores_of_two_threads() {
    let Some(mut linux) = Linux::boot("four_vcpus_are_two_cores", |spec, _| {
        spec.vcpus = 4;
        spec.cpu = CpuSpec {
            model: Model::V1,
            threads_per_core: 2,
        };
    }) else {
        return;
    };
    let cpuinfo = linux.ok("cat /proc/cpuinfo");
    assert_eq!(values(&cpuinfo, "processor"), ["0", "1", "2", "3"]);
    assert_eq!(values(&cpuinfo, "physical id"), ["0"; 4]);
    assert_eq!(values(&cpuinfo, "siblings"), ["4"; 4]);
    assert_eq!(values(&cpuinfo, "cpu cores"), ["2"; 4]);
    assert_eq!(values(&cpuinfo, "core id"), ["0", "0", "1", "1"]);
    assert_eq!(values(&cpuinfo, "apicid"), ["0", "1", "2", "3"]);
    let siblings = linux.ok("cat /sys/devices/system/cpu/cpu*/topology/thread_siblings_list");
    assert_eq!(siblings.replace('-', ","), "0,1\n0,1\n2,3\n2,3");
    let caches = linux.ok("cat /sys/devices/system/cpu/cpu0/cache/index*/shared_cpu_list");
    eprintln!("{caches:?}");
    // The baseline has no such instructions, whatever the host has.
    let flags: Vec<&str> = values(&cpuinfo, "flags")[0].split(' ').collect();
    assert!(flags.contains(&"sse2") && flags.contains(&"x2apic"), "{flags:?}");
    for hidden in ["avx", "avx2", "mmxext", "misalignsse", "rdtscp"] {
        assert!(!flags.contains(&hidden), "{hidden} in {flags:?}");
    }
    let complaints = linux.ok("dmesg | grep -iE 'firmware bug|mismatch|unchecked MSR' || true");
    assert_eq!(complaints, "");
}
