//! What a vCPU is before its first instruction: CPUID, model-specific registers, long mode.

use std::arch::x86_64::__cpuid;
use std::io;

use kvm_bindings::{
    CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, KVM_MAX_CPUID_ENTRIES, Msrs, kvm_cpuid_entry2, kvm_msr_entry,
    kvm_regs, kvm_segment,
};
use kvm_ioctls::{Cap, Kvm, VcpuFd};

use crate::boot::{Entry, tables};

const FEATURES: u32 = 1;
const CACHES: u32 = 4;
const PERFORMANCE_MONITORING: u32 = 0xa;
const TOPOLOGY: u32 = 0xb;
const TOPOLOGY_V2: u32 = 0x1f;
const AMD_SIZES: u32 = 0x8000_0008;

const ECX_VMX: u32 = 1 << 5;
const ECX_CX16: u32 = 1 << 13;
const ECX_TSC_DEADLINE: u32 = 1 << 24;
const ECX_HYPERVISOR: u32 = 1 << 31;
const EDX_HTT: u32 = 1 << 28;
const AMD_ECX_SVM: u32 = 1 << 2;

const MSR_MTRR_DEF_TYPE: u32 = 0x2ff;
const MTRR_ENABLE: u64 = 1 << 11;
const MTRR_WRITE_BACK: u64 = 6;

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

/// The CPUID of a machine: the host's, as far as KVM passes it on, with our topology.
pub struct CpuModel {
    leaves: CpuId,
    vcpus: u8,
}

impl CpuModel {
    /// # Errors
    /// KVM does not say what it supports.
    pub fn new(kvm: &Kvm, vcpus: u8) -> io::Result<Self> {
        let mut leaves = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
        let tsc_deadline = kvm.check_extension(Cap::TscDeadlineTimer);
        let emulated = is_emulated();
        leaves.retain(|leaf| !matches!(leaf.function, TOPOLOGY | TOPOLOGY_V2));
        for leaf in leaves.as_mut_slice() {
            match leaf.function {
                FEATURES => {
                    leaf.ecx |= ECX_HYPERVISOR;
                    if tsc_deadline {
                        leaf.ecx |= ECX_TSC_DEADLINE;
                    }
                    if emulated {
                        leaf.ecx &= !ECX_CX16;
                    }
                    leaf.ebx = leaf.ebx & 0xffff | u32::from(vcpus) << 16;
                    leaf.edx = leaf.edx & !EDX_HTT | if vcpus > 1 { EDX_HTT } else { 0 };
                }
                CACHES => {
                    // Each vCPU is a core with caches of its own, but for the last level.
                    let level = leaf.eax >> 5 & 7;
                    let sharing = if level >= 3 { u32::from(vcpus) - 1 } else { 0 };
                    let cores = u32::from(vcpus) - 1;
                    leaf.eax = leaf.eax & 0x3fff | sharing << 14 | cores << 26;
                }
                // No virtual PMU: it costs at every switch, and micro-VMs do not sell it.
                PERFORMANCE_MONITORING => {
                    (leaf.eax, leaf.ebx, leaf.ecx, leaf.edx) = (0, 0, 0, 0);
                }
                AMD_SIZES => leaf.ecx = u32::from(vcpus) - 1,
                _ => {}
            }
        }
        for level in 0..2 {
            leaves
                .push(topology(level, vcpus))
                .map_err(|_| io::Error::other("KVM's CPUID has no room for the topology"))?;
        }
        Ok(Self { leaves, vcpus })
    }

    /// Gives vCPU `id` its CPUID.
    ///
    /// # Errors
    /// KVM refused it.
    pub fn apply(&mut self, vcpu: &VcpuFd, id: u8) -> io::Result<()> {
        debug_assert!(id < self.vcpus);
        for leaf in self.leaves.as_mut_slice() {
            match leaf.function {
                FEATURES => leaf.ebx = leaf.ebx & 0x00ff_ffff | u32::from(id) << 24,
                TOPOLOGY => leaf.edx = u32::from(id),
                _ => {}
            }
        }
        Ok(vcpu.set_cpuid2(&self.leaves)?)
    }
}

/// Whether KVM runs without a processor's virtualization extensions, interpreting the guest's kernel: there
/// CMPXCHG16B is missing, and a kernel that saw it would use it. CPUID tells even from inside a jail.
fn is_emulated() -> bool {
    let vmx = __cpuid(FEATURES).ecx & ECX_VMX != 0;
    let svm = __cpuid(0x8000_0000).eax > 0x8000_0000 && __cpuid(0x8000_0001).ecx & AMD_ECX_SVM != 0;
    !vmx && !svm
}

/// Extended topology: one thread a core, all cores in one package.
fn topology(level: u32, vcpus: u8) -> kvm_cpuid_entry2 {
    const THREADS: u32 = 1 << 8;
    const CORES: u32 = 2 << 8;
    let (shift, processors, kind) = match level {
        0 => (0, 1, THREADS),
        _ => (u32::from(vcpus).next_power_of_two().ilog2(), vcpus, CORES),
    };
    kvm_cpuid_entry2 {
        function: TOPOLOGY,
        index: level,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: u32::from(processors),
        ecx: kind | level,
        edx: 0,
        ..Default::default()
    }
}

/// Puts the boot processor at the kernel's 64-bit entry: paging on, flat segments, RSI at the boot
/// parameters (Linux boot protocol, "64-bit boot protocol"). The other processors wait for their SIPI as
/// KVM makes them.
///
/// # Errors
/// KVM refused the registers.
pub fn enter_long_mode(vcpu: &VcpuFd, entry: &Entry) -> io::Result<()> {
    let mut sregs = vcpu.get_sregs()?;
    let segment = |selector: u16, kind: u8, long: bool| kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_: kind,
        present: 1,
        dpl: 0,
        db: u8::from(!long),
        s: 1,
        l: u8::from(long),
        g: 1,
        ..Default::default()
    };
    sregs.cs = segment(tables::CODE_SELECTOR, 0xb, true);
    let data = segment(tables::DATA_SELECTOR, 0x3, false);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.gdt.base = tables::GDT_ADDRESS;
    sregs.gdt.limit = tables::GDT_LIMIT;
    sregs.cr3 = tables::PML4_ADDRESS;
    sregs.cr4 |= CR4_PAE;
    sregs.cr0 |= CR0_PE | CR0_ET | CR0_PG;
    sregs.efer |= EFER_LME | EFER_LMA;
    vcpu.set_sregs(&sregs)?;
    vcpu.set_regs(&kvm_regs {
        rip: entry.address,
        rsi: entry.boot_params,
        rsp: tables::STACK_TOP,
        rflags: 2,
        ..Default::default()
    })?;
    Ok(())
}

/// Memory is write-back unless page tables say otherwise, as firmware leaves it.
///
/// # Errors
/// KVM refused the register.
pub fn set_memory_type(vcpu: &VcpuFd) -> io::Result<()> {
    let msrs = Msrs::from_entries(&[kvm_msr_entry {
        index: MSR_MTRR_DEF_TYPE,
        data: MTRR_ENABLE | MTRR_WRITE_BACK,
        ..Default::default()
    }])
    .map_err(|_| io::Error::other("MSR list"))?;
    match vcpu.set_msrs(&msrs)? {
        1 => Ok(()),
        _ => Err(io::Error::other("KVM refused the default memory type")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topology_numbers_every_vcpu() {
        for vcpus in 1..=32_u8 {
            let cores = topology(1, vcpus);
            assert!(1 << cores.eax >= u32::from(vcpus));
            assert_eq!(cores.ebx, u32::from(vcpus));
            assert_eq!(topology(0, vcpus).eax, 0);
        }
    }
}
