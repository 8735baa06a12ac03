//! Names for CPUID's feature bits, as Linux prints them in `/proc/cpuinfo`.

use super::leaves::{
    ADVANCED_POWER, AMD_FEATURES_2, EXTENDED_FEATURES, EXTENDED_STATE, FEATURES, KVM_FEATURES, SIZES,
    STRUCTURED_FEATURES,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Register {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

/// A register of a leaf that holds features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Leaf1Ecx,
    Leaf1Edx,
    Leaf7Ebx,
    Leaf7Ecx,
    Leaf7Edx,
    Leaf7Sub1Eax,
    Leaf7Sub1Ebx,
    Leaf7Sub1Ecx,
    Leaf7Sub1Edx,
    /// Speculation controls, and nothing else.
    Leaf7Sub2Edx,
    /// Ways to save extended state.
    LeafDSub1Eax,
    KvmEax,
    /// AMD repeats some of leaf 1's EDX here.
    Extended1Edx,
    Extended1Ecx,
    Extended7Edx,
    Extended8Ebx,
    Extended21Eax,
}

use Register::{Eax, Ebx, Ecx, Edx};
use Word::{
    Extended1Ecx, Extended1Edx, Extended7Edx, Extended8Ebx, Extended21Eax, KvmEax, Leaf1Ecx, Leaf1Edx,
    Leaf7Ebx, Leaf7Ecx, Leaf7Edx, Leaf7Sub1Eax, Leaf7Sub1Ebx, Leaf7Sub1Ecx, Leaf7Sub1Edx, Leaf7Sub2Edx,
    LeafDSub1Eax,
};

impl Word {
    pub(super) const ALL: [Self; 17] = [
        Leaf1Ecx,
        Leaf1Edx,
        Leaf7Ebx,
        Leaf7Ecx,
        Leaf7Edx,
        Leaf7Sub1Eax,
        Leaf7Sub1Ebx,
        Leaf7Sub1Ecx,
        Leaf7Sub1Edx,
        Leaf7Sub2Edx,
        LeafDSub1Eax,
        KvmEax,
        Extended1Edx,
        Extended1Ecx,
        Extended7Edx,
        Extended8Ebx,
        Extended21Eax,
    ];

    /// Function, index, register.
    pub(super) const fn place(self) -> (u32, u32, Register) {
        match self {
            Leaf1Ecx => (FEATURES, 0, Ecx),
            Leaf1Edx => (FEATURES, 0, Edx),
            Leaf7Ebx => (STRUCTURED_FEATURES, 0, Ebx),
            Leaf7Ecx => (STRUCTURED_FEATURES, 0, Ecx),
            Leaf7Edx => (STRUCTURED_FEATURES, 0, Edx),
            Leaf7Sub1Eax => (STRUCTURED_FEATURES, 1, Eax),
            Leaf7Sub1Ebx => (STRUCTURED_FEATURES, 1, Ebx),
            Leaf7Sub1Ecx => (STRUCTURED_FEATURES, 1, Ecx),
            Leaf7Sub1Edx => (STRUCTURED_FEATURES, 1, Edx),
            Leaf7Sub2Edx => (STRUCTURED_FEATURES, 2, Edx),
            LeafDSub1Eax => (EXTENDED_STATE, 1, Eax),
            KvmEax => (KVM_FEATURES, 0, Eax),
            Extended1Edx => (EXTENDED_FEATURES, 0, Edx),
            Extended1Ecx => (EXTENDED_FEATURES, 0, Ecx),
            Extended7Edx => (ADVANCED_POWER, 0, Edx),
            Extended8Ebx => (SIZES, 0, Ebx),
            Extended21Eax => (AMD_FEATURES_2, 0, Eax),
        }
    }

    /// Bits that tell of, or control, how the processor speculates, what it leaks and what it no longer does. A
    /// guest is only safe if it knows what is true of the processor that it runs on, so no model takes them away.
    pub(super) const fn truths(self) -> u32 {
        match self {
            // The FPU's data pointer, code and data segments are kept on exceptions only, or not at all.
            Leaf7Ebx => 1 << 6 | 1 << 13,
            // md_clear, tsx_force_abort; spec_ctrl, intel_stibp, flush_l1d, arch_capabilities, ssbd
            Leaf7Edx => 1 << 10 | 1 << 13 | 1 << 26 | 1 << 27 | 1 << 28 | 1 << 29 | 1 << 31,
            Leaf7Sub2Edx => u32::MAX,
            // xsaveerptr; ibpb; ibrs, stibp and how they are best used; ssbd in three ways
            Extended8Ebx => 1 << 2 | 1 << 12 | 0x3f << 14 | 7 << 24,
            // LFENCE serializes, null selectors clear bases, automatic IBRS, SBPB, IBPB's reach, SRSO_NO
            Extended21Eax => 1 << 2 | 1 << 6 | 1 << 8 | 7 << 27,
            _ => 0,
        }
    }
}

/// A feature's bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Feature {
    pub(super) word: Word,
    pub(super) bit: u32,
    pub(super) name: &'static str,
}

impl Feature {
    pub(super) const fn mask(self) -> u32 {
        1 << self.bit
    }
}

const fn feature(word: Word, bit: u32, name: &'static str) -> Feature {
    Feature { word, bit, name }
}

pub(super) const CX16: Feature = feature(Leaf1Ecx, 13, "cx16");
pub(super) const TSC_DEADLINE: Feature = feature(Leaf1Ecx, 24, "tsc_deadline_timer");
pub(super) const HYPERVISOR: Feature = feature(Leaf1Ecx, 31, "hypervisor");
/// More than one logical processor shares the package.
pub(super) const HT: Feature = feature(Leaf1Edx, 28, "ht");
/// The same, for AMD: and it is cores that share it.
pub(super) const CMP_LEGACY: Feature = feature(Extended1Ecx, 1, "cmp_legacy");
/// AMD's leaves on topology and caches are there.
pub(super) const TOPOEXT: Feature = feature(Extended1Ecx, 22, "topoext");

pub(super) const PERFORMANCE_COUNTERS: &[Feature] = &[
    feature(Leaf1Ecx, 15, "pdcm"),
    feature(Extended1Ecx, 23, "perfctr_core"),
    feature(Extended1Ecx, 24, "perfctr_nb"),
    feature(Extended1Ecx, 28, "perfctr_llc"),
];

pub(super) const NESTED_VIRTUALIZATION: &[Feature] =
    &[feature(Leaf1Ecx, 5, "vmx"), feature(Extended1Ecx, 2, "svm")];

/// What makes an x86-64 PC under KVM, whatever its age; the host's kernel is Linux 5.2 or later.
/// Not in it is a constant TSC: hosts that are virtual machines themselves rarely have one, and guests have KVM's clock.
pub(super) const PLATFORM: &[Feature] = &[
    feature(Leaf1Edx, 0, "fpu"),
    feature(Leaf1Edx, 1, "vme"),
    feature(Leaf1Edx, 2, "de"),
    feature(Leaf1Edx, 3, "pse"),
    feature(Leaf1Edx, 4, "tsc"),
    feature(Leaf1Edx, 5, "msr"),
    feature(Leaf1Edx, 6, "pae"),
    feature(Leaf1Edx, 7, "mce"),
    feature(Leaf1Edx, 8, "cx8"),
    feature(Leaf1Edx, 9, "apic"),
    feature(Leaf1Edx, 11, "sep"),
    feature(Leaf1Edx, 12, "mtrr"),
    feature(Leaf1Edx, 13, "pge"),
    feature(Leaf1Edx, 14, "mca"),
    feature(Leaf1Edx, 15, "cmov"),
    feature(Leaf1Edx, 16, "pat"),
    feature(Leaf1Edx, 17, "pse36"),
    feature(Leaf1Edx, 19, "clflush"),
    feature(Leaf1Edx, 23, "mmx"),
    feature(Leaf1Edx, 24, "fxsr"),
    feature(Leaf1Edx, 25, "sse"),
    feature(Leaf1Edx, 26, "sse2"),
    feature(Leaf1Ecx, 21, "x2apic"),
    TSC_DEADLINE,
    HYPERVISOR,
    feature(Extended1Edx, 11, "syscall"),
    feature(Extended1Edx, 20, "nx"),
    feature(Extended1Edx, 29, "lm"),
    feature(KvmEax, 0, "kvm_clock"),
    feature(KvmEax, 3, "kvm_clock2"),
    feature(KvmEax, 5, "kvm_steal_time"),
    feature(KvmEax, 6, "kvm_pv_eoi"),
    feature(KvmEax, 7, "kvm_pv_unhalt"),
    feature(KvmEax, 9, "kvm_pv_tlb_flush"),
    feature(KvmEax, 11, "kvm_pv_ipi"),
    feature(KvmEax, 13, "kvm_pv_sched_yield"),
    feature(KvmEax, 24, "kvm_clock_stable"),
];

/// The x86-64 psABI's second level: Nehalem (2008), Jaguar (2013) and later.
pub(super) const LEVEL_2: &[Feature] = &[
    feature(Leaf1Ecx, 0, "pni"),
    feature(Leaf1Ecx, 9, "ssse3"),
    CX16,
    feature(Leaf1Ecx, 19, "sse4_1"),
    feature(Leaf1Ecx, 20, "sse4_2"),
    feature(Leaf1Ecx, 23, "popcnt"),
    feature(Extended1Ecx, 0, "lahf_lm"),
    feature(Extended1Edx, 27, "rdtscp"),
];

/// Its third level, and what all such servers have besides: Haswell (2013), Zen (2017) and later.
pub(super) const LEVEL_3: &[Feature] = &[
    feature(Leaf1Ecx, 1, "pclmulqdq"),
    feature(Leaf1Ecx, 12, "fma"),
    feature(Leaf1Ecx, 22, "movbe"),
    feature(Leaf1Ecx, 25, "aes"),
    feature(Leaf1Ecx, 26, "xsave"),
    feature(Leaf1Ecx, 28, "avx"),
    feature(Leaf1Ecx, 29, "f16c"),
    feature(Leaf1Ecx, 30, "rdrand"),
    feature(Leaf7Ebx, 0, "fsgsbase"),
    feature(Leaf7Ebx, 1, "tsc_adjust"),
    feature(Leaf7Ebx, 3, "bmi1"),
    feature(Leaf7Ebx, 5, "avx2"),
    feature(Leaf7Ebx, 7, "smep"),
    feature(Leaf7Ebx, 8, "bmi2"),
    feature(LeafDSub1Eax, 0, "xsaveopt"),
    feature(Extended1Ecx, 5, "abm"),
    feature(Extended1Edx, 26, "pdpe1gb"),
];

/// Its fourth level, and the same: Skylake servers (2017), Zen 4 (2022) and later.
pub(super) const LEVEL_4: &[Feature] = &[
    feature(Leaf1Ecx, 17, "pcid"),
    feature(Leaf7Ebx, 9, "erms"),
    feature(Leaf7Ebx, 10, "invpcid"),
    feature(Leaf7Ebx, 16, "avx512f"),
    feature(Leaf7Ebx, 17, "avx512dq"),
    feature(Leaf7Ebx, 18, "rdseed"),
    feature(Leaf7Ebx, 19, "adx"),
    feature(Leaf7Ebx, 20, "smap"),
    feature(Leaf7Ebx, 23, "clflushopt"),
    feature(Leaf7Ebx, 24, "clwb"),
    feature(Leaf7Ebx, 28, "avx512cd"),
    feature(Leaf7Ebx, 30, "avx512bw"),
    feature(Leaf7Ebx, 31, "avx512vl"),
    feature(LeafDSub1Eax, 1, "xsavec"),
    feature(LeafDSub1Eax, 2, "xgetbv1"),
    feature(Extended1Ecx, 8, "3dnowprefetch"),
];
