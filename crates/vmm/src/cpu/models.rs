//! Named CPU models: `host`, and baselines that different hosts share.
//!
//! A baseline is exact: the guest sees the features of its table and no others, and a host that lacks one is
//! refused. So a program that was started, or a snapshot that was taken, on one host goes on on another of the
//! same vendor. Not part of a baseline are vendor, family, model and name of the processor, by which kernels work
//! around its errata, and the bits on speculation and leaks: these stay the host's.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::CpuError;
use super::features::{Feature, LEVEL_2, LEVEL_3, LEVEL_4, PLATFORM, TOPOEXT, Word};
use super::leaves::{
    ADVANCED_POWER, AMD_CACHES, AMD_FEATURES_2, AMD_TOPOLOGY, BASIC, CACHES, EXTENDED, EXTENDED_FEATURES,
    EXTENDED_STATE, FEATURES, KVM_FEATURES, KVM_SIGNATURE, Leaves, SIZES, STRUCTURED_FEATURES,
};

/// Descriptors of caches and TLBs, in Intel's old way.
const CACHE_DESCRIPTORS: u32 = 2;
/// ARAT, "the APIC timer always runs", and no power management.
const THERMAL: u32 = 6;
/// The processor's name, its L1 and its L2 cache.
const NAME_AND_CACHES: std::ops::RangeInclusive<u32> = 0x8000_0002..=0x8000_0006;
/// Sub-leaves of structured features that we know.
const LAST_STRUCTURED: u32 = 2;
/// What AMD repeats of leaf 1's EDX.
pub(super) const REPEATED: u32 = 0x0183_f3ff;
/// Of extended state: the legacy area and the header.
const LEGACY_STATE_SIZE: u32 = 576;

/// A processor by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Model {
    /// All that KVM can give on this host.
    #[serde(rename = "host")]
    Host,
    /// The levels of the x86-64 psABI; each has all of the one before.
    #[serde(rename = "x86-64-v1")]
    V1,
    #[serde(rename = "x86-64-v2")]
    V2,
    #[serde(rename = "x86-64-v3")]
    V3,
    #[serde(rename = "x86-64-v4")]
    V4,
}

/// What a baseline consists of.
struct Baseline {
    features: &'static [&'static [Feature]],
    /// Components of extended state, as in XCR0.
    state: u64,
}

/// x87 and SSE.
const BASIC_STATE: u64 = 3;
const AVX_STATE: u64 = 1 << 2;
/// Masks, upper halves, upper registers.
const AVX512_STATE: u64 = 7 << 5;

impl Model {
    pub const ALL: [Self; 5] = [Self::Host, Self::V1, Self::V2, Self::V3, Self::V4];

    /// As specs name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::V1 => "x86-64-v1",
            Self::V2 => "x86-64-v2",
            Self::V3 => "x86-64-v3",
            Self::V4 => "x86-64-v4",
        }
    }

    fn baseline(self) -> Option<Baseline> {
        let (features, state): (&[_], _) = match self {
            Self::Host => return None,
            Self::V1 => (&[PLATFORM], 0),
            Self::V2 => (&[PLATFORM, LEVEL_2], 0),
            Self::V3 => (&[PLATFORM, LEVEL_2, LEVEL_3], BASIC_STATE | AVX_STATE),
            Self::V4 => (
                &[PLATFORM, LEVEL_2, LEVEL_3, LEVEL_4],
                BASIC_STATE | AVX_STATE | AVX512_STATE,
            ),
        };
        Some(Baseline { features, state })
    }

    /// Cuts the host's leaves down to the model.
    pub(super) fn apply(self, leaves: &mut Leaves) -> Result<(), CpuError> {
        let Some(baseline) = self.baseline() else {
            return Ok(());
        };
        let features = || baseline.features.iter().copied().flatten();
        let missing: Vec<&str> = features()
            .filter(|feature| !leaves.has(**feature))
            .map(|feature| feature.name)
            .collect();
        if !missing.is_empty() {
            return Err(CpuError::Missing {
                model: self,
                missing: missing.join(", "),
            });
        }
        leaves.retain(|leaf| is_shared(leaf.function));
        for word in Word::ALL {
            let shown = features()
                .filter(|feature| feature.word == word)
                .fold(word.truths() | repeated(word, leaves), |mask, feature| {
                    mask | feature.mask()
                });
            if let Some(word) = leaves.word_mut(word) {
                *word &= shown;
            }
        }
        if let Some(first) = leaves.get_mut(BASIC, 0) {
            first.eax = EXTENDED_STATE;
        }
        if let Some(structured) = leaves.get_mut(STRUCTURED_FEATURES, 0) {
            structured.eax = structured.eax.min(LAST_STRUCTURED);
        }
        cut_state(leaves, baseline.state);
        Ok(())
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Leaves that a baseline has; those of topology are made anew.
fn is_shared(function: u32) -> bool {
    NAME_AND_CACHES.contains(&function)
        || matches!(
            function,
            BASIC
                | FEATURES
                | CACHE_DESCRIPTORS
                | CACHES
                | THERMAL
                | STRUCTURED_FEATURES
                | EXTENDED_STATE
                | KVM_SIGNATURE
                | KVM_FEATURES
                | EXTENDED
                | EXTENDED_FEATURES
                | ADVANCED_POWER
                | SIZES
                | AMD_CACHES
                | AMD_TOPOLOGY
                | AMD_FEATURES_2
        )
}

/// AMD's repetitions, as far as they are in the model, and whether it has its leaves on topology.
fn repeated(word: Word, leaves: &Leaves) -> u32 {
    match word {
        Word::Extended1Edx if leaves.is_amd() => REPEATED & leaves.word(Word::Leaf1Edx),
        Word::Extended1Ecx => TOPOEXT.mask(),
        _ => 0,
    }
}

/// Leaves only the `kept` components of extended state.
fn cut_state(leaves: &mut Leaves, kept: u64) {
    const COMPACTED: u32 = 1;
    leaves.retain(|leaf| {
        leaf.function != EXTENDED_STATE || leaf.index <= COMPACTED || kept >> leaf.index & 1 != 0
    });
    let end = leaves
        .each_mut(EXTENDED_STATE)
        .filter(|leaf| leaf.index > COMPACTED)
        .map(|leaf| leaf.ebx.saturating_add(leaf.eax))
        .fold(LEGACY_STATE_SIZE, u32::max);
    if let Some(sizes) = leaves.get_mut(EXTENDED_STATE, 0) {
        sizes.eax &= kept as u32;
        sizes.edx &= (kept >> 32) as u32;
        let size = if kept == 0 { 0 } else { end };
        (sizes.ebx, sizes.ecx) = (size, size);
    }
    if let Some(supervisor) = leaves.get_mut(EXTENDED_STATE, COMPACTED) {
        (supervisor.ebx, supervisor.ecx, supervisor.edx) = (0, 0, 0);
    }
}
