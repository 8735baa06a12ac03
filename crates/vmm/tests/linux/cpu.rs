//! What Linux makes of CPUID.

use super::harness::Linux;

/// The values of `key` in /proc/cpuinfo, one for each processor.
pub fn values<'a>(cpuinfo: &'a str, key: &str) -> Vec<&'a str> {
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
        spec.cpu.threads_per_core = 2;
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
    let complaints = linux.ok("dmesg | grep -iE 'firmware bug|mismatch|unchecked MSR' || true");
    assert_eq!(complaints, "");
}
