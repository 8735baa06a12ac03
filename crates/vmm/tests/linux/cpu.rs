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

/// More processors are the unit tests' matter: two host CPUs that interpret four guests' kernels take minutes.
#[test]
fn two_vcpus_are_one_core_of_two_threads() {
    let Some(mut linux) = Linux::boot("two_vcpus_are_one_core", |spec, _| {
        spec.vcpus = 2;
        spec.cpu.threads_per_core = 2;
    }) else {
        return;
    };
    let cpuinfo = linux.ok("cat /proc/cpuinfo");
    assert_eq!(values(&cpuinfo, "processor"), ["0", "1"]);
    assert_eq!(values(&cpuinfo, "physical id"), ["0"; 2]);
    assert_eq!(values(&cpuinfo, "siblings"), ["2"; 2]);
    assert_eq!(values(&cpuinfo, "cpu cores"), ["1"; 2]);
    assert_eq!(values(&cpuinfo, "core id"), ["0"; 2]);
    assert_eq!(values(&cpuinfo, "apicid"), ["0", "1"]);
    let siblings = linux.ok("cat /sys/devices/system/cpu/cpu*/topology/thread_siblings_list");
    assert_eq!(siblings.replace('-', ","), "0,1\n0,1");
    // Of AMD's P0 frequency only KVM's own HWCR knows.
    let complaints =
        linux.ok("dmesg | grep -iE 'firmware bug|mismatch|unchecked MSR' | grep -v 'P0 freq' || true");
    assert_eq!(complaints, "");
}
