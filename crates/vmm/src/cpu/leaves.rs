//! CPUID as a list of leaves, as KVM takes it.

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

use super::features::{Feature, Register, Word};

/// Basic leaves begin here and extended ones at [`EXTENDED`]: the first of each says which the last is.
pub(super) const BASIC: u32 = 0;
pub(super) const FEATURES: u32 = 1;
/// "Deterministic cache parameters"; [`AMD_CACHES`] is laid out alike.
pub(super) const CACHES: u32 = 4;
pub(super) const STRUCTURED_FEATURES: u32 = 7;
pub(super) const PERFORMANCE_MONITORING: u32 = 0xa;
pub(super) const TOPOLOGY: u32 = 0xb;
pub(super) const EXTENDED_STATE: u32 = 0xd;
pub(super) const TOPOLOGY_V2: u32 = 0x1f;
pub(super) const KVM_SIGNATURE: u32 = 0x4000_0000;
pub(super) const KVM_FEATURES: u32 = 0x4000_0001;
pub(super) const EXTENDED: u32 = 0x8000_0000;
pub(super) const EXTENDED_FEATURES: u32 = 0x8000_0001;
pub(super) const ADVANCED_POWER: u32 = 0x8000_0007;
pub(super) const SIZES: u32 = 0x8000_0008;
pub(super) const AMD_VIRTUALIZATION: u32 = 0x8000_000a;
pub(super) const AMD_CACHES: u32 = 0x8000_001d;
pub(super) const AMD_TOPOLOGY: u32 = 0x8000_001e;
pub(super) const AMD_FEATURES_2: u32 = 0x8000_0021;
pub(super) const AMD_PERFORMANCE_MONITORING: u32 = 0x8000_0022;
pub(super) const AMD_TOPOLOGY_V2: u32 = 0x8000_0026;

/// The first four letters of `AuthenticAMD` and `HygonGenuine`.
const AMD_VENDORS: [u32; 2] = [u32::from_le_bytes(*b"Auth"), u32::from_le_bytes(*b"Hygo")];

/// The leaves of one vCPU.
#[derive(Debug, Clone)]
pub(super) struct Leaves(Vec<kvm_cpuid_entry2>);

impl Leaves {
    pub(super) fn new(leaves: &[kvm_cpuid_entry2]) -> Self {
        Self(leaves.to_vec())
    }

    pub(super) fn entries(&self) -> &[kvm_cpuid_entry2] {
        &self.0
    }

    pub(super) fn get(&self, function: u32, index: u32) -> Option<&kvm_cpuid_entry2> {
        self.0
            .iter()
            .find(|leaf| leaf.function == function && leaf.index == index)
    }

    pub(super) fn get_mut(&mut self, function: u32, index: u32) -> Option<&mut kvm_cpuid_entry2> {
        self.0
            .iter_mut()
            .find(|leaf| leaf.function == function && leaf.index == index)
    }

    /// All sub-leaves of `function`.
    pub(super) fn each_mut(&mut self, function: u32) -> impl Iterator<Item = &mut kvm_cpuid_entry2> {
        self.0.iter_mut().filter(move |leaf| leaf.function == function)
    }

    pub(super) fn retain(&mut self, keep: impl FnMut(&kvm_cpuid_entry2) -> bool) {
        self.0.retain(keep);
    }

    /// Adds a sub-leaf; the function has none with this index yet.
    pub(super) fn add(&mut self, function: u32, index: u32, [eax, ebx, ecx, edx]: [u32; 4]) {
        self.0.push(kvm_cpuid_entry2 {
            function,
            index,
            flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            eax,
            ebx,
            ecx,
            edx,
            ..Default::default()
        });
    }

    /// A word of features; zero where the leaf is absent.
    pub(super) fn word(&self, word: Word) -> u32 {
        let (function, index, register) = word.place();
        self.get(function, index).map_or(0, |leaf| match register {
            Register::Eax => leaf.eax,
            Register::Ebx => leaf.ebx,
            Register::Ecx => leaf.ecx,
            Register::Edx => leaf.edx,
        })
    }

    /// The same to change, where the leaf is there.
    pub(super) fn word_mut(&mut self, word: Word) -> Option<&mut u32> {
        let (function, index, register) = word.place();
        self.get_mut(function, index).map(|leaf| match register {
            Register::Eax => &mut leaf.eax,
            Register::Ebx => &mut leaf.ebx,
            Register::Ecx => &mut leaf.ecx,
            Register::Edx => &mut leaf.edx,
        })
    }

    pub(super) fn has(&self, feature: Feature) -> bool {
        self.word(feature.word) & feature.mask() != 0
    }

    /// Shows or hides a feature; one whose leaf is absent cannot be shown.
    pub(super) fn set(&mut self, feature: Feature, shown: bool) {
        if let Some(word) = self.word_mut(feature.word) {
            *word = *word & !feature.mask() | if shown { feature.mask() } else { 0 };
        }
    }

    /// AMD's way to tell about topology and caches, and its copy of features in the extended leaf.
    pub(super) fn is_amd(&self) -> bool {
        self.get(BASIC, 0)
            .is_some_and(|leaf| AMD_VENDORS.contains(&leaf.ebx))
    }

    /// No virtual PMU: it costs at every switch, and micro-VMs do not sell it.
    pub(super) fn hide_performance_counters(&mut self) {
        self.retain(|leaf| !matches!(leaf.function, PERFORMANCE_MONITORING | AMD_PERFORMANCE_MONITORING));
        for feature in super::features::PERFORMANCE_COUNTERS {
            self.set(*feature, false);
        }
    }

    /// No virtual machines in the guest: their registers are behind the filter of [`super::msrs`], and KVM's code for
    /// them is large.
    pub(super) fn hide_nested_virtualization(&mut self) {
        self.retain(|leaf| leaf.function != AMD_VIRTUALIZATION);
        for feature in super::features::NESTED_VIRTUALIZATION {
            self.set(*feature, false);
        }
    }
}
