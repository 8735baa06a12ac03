//! One package of cores, each with one or two threads, in all the ways in which CPUID tells of it.
//!
//! A vCPU's APIC id is its number; with two threads a core, numbers 2n and 2n+1 are core n. Each core has caches
//! of its own, but for the last level, which all share.

use super::CpuError;
use super::features::{CMP_LEGACY, HT, TOPOEXT};
use super::leaves::{
    AMD_CACHES, AMD_TOPOLOGY, AMD_TOPOLOGY_V2, BASIC, CACHES, FEATURES, Leaves, SIZES, TOPOLOGY, TOPOLOGY_V2,
};

/// Levels of leaf 0xb, in ECX.
const LEVEL_THREADS: u32 = 1 << 8;
const LEVEL_CORES: u32 = 2 << 8;
/// The cache level that all cores share.
const SHARED_CACHE: u32 = 3;

/// How many vCPUs, and how they share cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topology {
    vcpus: u32,
    threads_per_core: u32,
}

impl Topology {
    /// # Errors
    /// There are cores with one thread missing, or of more than two.
    pub fn new(vcpus: u8, threads_per_core: u8) -> Result<Self, CpuError> {
        let whole = match threads_per_core {
            1 => vcpus > 0,
            2 => vcpus > 0 && vcpus.is_multiple_of(2),
            _ => false,
        };
        if !whole {
            return Err(CpuError::Topology {
                vcpus,
                threads_per_core,
            });
        }
        Ok(Self {
            vcpus: u32::from(vcpus),
            threads_per_core: u32::from(threads_per_core),
        })
    }

    /// Bits of an APIC id that number threads in a core.
    fn thread_bits(self) -> u32 {
        bits(self.threads_per_core)
    }

    /// Bits of an APIC id that number threads in the package.
    fn package_bits(self) -> u32 {
        bits(self.vcpus / self.threads_per_core) + self.thread_bits()
    }

    /// Writes what is the same for all vCPUs.
    pub(super) fn describe(self, leaves: &mut Leaves) {
        let several = self.vcpus > 1;
        leaves.set(HT, several);
        if let Some(features) = leaves.get_mut(FEATURES, 0) {
            features.ebx = features.ebx & 0xff00_ffff | (1 << self.package_bits()) << 16;
        }
        let cores = 1 << (self.package_bits() - self.thread_bits());
        for cache in leaves.each_mut(CACHES) {
            cache.eax = self.sharing(cache.eax);
            if cache.eax & 0x1f != 0 {
                cache.eax = cache.eax & 0x03ff_ffff | (cores - 1) << 26;
            }
        }
        self.describe_levels(leaves);
        if leaves.is_amd() {
            leaves.set(CMP_LEGACY, several);
            if let Some(sizes) = leaves.get_mut(SIZES, 0) {
                sizes.ecx = self.package_bits() << 12 | (self.vcpus - 1);
            }
        }
        for cache in leaves.each_mut(AMD_CACHES) {
            cache.eax = self.sharing(cache.eax);
        }
        if leaves.has(TOPOEXT) && leaves.get(AMD_TOPOLOGY, 0).is_none() {
            leaves.add(AMD_TOPOLOGY, 0, [0; 4]);
        }
    }

    /// Leaf 0xb, and 0x1f, the same with room for more levels, where the host has it.
    fn describe_levels(self, leaves: &mut Leaves) {
        leaves.retain(|leaf| !matches!(leaf.function, TOPOLOGY | TOPOLOGY_V2 | AMD_TOPOLOGY_V2));
        let last = leaves.get_mut(BASIC, 0).map_or(TOPOLOGY, |first| {
            first.eax = first.eax.max(TOPOLOGY);
            first.eax
        });
        for function in [TOPOLOGY, TOPOLOGY_V2].into_iter().filter(|&leaf| leaf <= last) {
            let threads = [self.thread_bits(), self.threads_per_core, LEVEL_THREADS, 0];
            let cores = [self.package_bits(), self.vcpus, LEVEL_CORES | 1, 0];
            leaves.add(function, 0, threads);
            leaves.add(function, 1, cores);
            leaves.add(function, 2, [0, 0, 2, 0]);
        }
    }

    /// EAX of a cache leaf with how many threads share the cache; an end mark stays as it is.
    fn sharing(self, eax: u32) -> u32 {
        let (kind, level) = (eax & 0x1f, eax >> 5 & 7);
        if kind == 0 {
            return eax;
        }
        let sharing = if level >= SHARED_CACHE {
            1 << self.package_bits()
        } else {
            self.threads_per_core
        };
        eax & !(0xfff << 14) | (sharing - 1) << 14
    }

    /// Writes what is vCPU `id`'s own.
    pub(super) fn name(self, leaves: &mut Leaves, id: u8) {
        let id = u32::from(id);
        if let Some(features) = leaves.get_mut(FEATURES, 0) {
            features.ebx = features.ebx & 0x00ff_ffff | id << 24;
        }
        for function in [TOPOLOGY, TOPOLOGY_V2] {
            leaves.each_mut(function).for_each(|level| level.edx = id);
        }
        if leaves.has(TOPOEXT)
            && let Some(amd) = leaves.get_mut(AMD_TOPOLOGY, 0)
        {
            amd.eax = id;
            amd.ebx = (self.threads_per_core - 1) << 8 | id >> self.thread_bits();
            // One node.
            amd.ecx = 0;
        }
    }
}

/// How many bits number so many things.
fn bits(count: u32) -> u32 {
    count.next_power_of_two().ilog2()
}
