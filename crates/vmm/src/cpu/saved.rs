//! Whether saved processors can go on on this host.
//!
//! A guest looks at CPUID when it boots and counts on it ever after. KVM takes any CPUID, also one with features that
//! the host lacks: the guest would then die of an instruction, some time. So what a snapshot's processors have is
//! compared before.

use std::arch::x86_64::__cpuid_count;

use kvm_bindings::kvm_cpuid_entry2;
use kvm_ioctls::Kvm;

use super::features::{
    CMP_LEGACY, Feature, HT, LEVEL_2, LEVEL_3, LEVEL_4, PLATFORM, Register, TOPOEXT, Word,
};
use super::leaves::{BASIC, EXTENDED_STATE, Leaves};
use super::{CpuError, host_leaves, is_emulated};

/// OSXSAVE and OSPKE: what the guest has turned on, in its control registers.
const TURNED_ON: [(Word, u32); 2] = [(Word::Leaf1Ecx, 1 << 27), (Word::Leaf7Ecx, 1 << 4)];
/// They tell of the machine's topology, which is ours to make.
const OF_TOPOLOGY: [Feature; 3] = [HT, CMP_LEGACY, TOPOEXT];

/// Checks that this host has all that the saved processors' CPUID promises.
///
/// # Errors
/// It lacks something, is another vendor's, or KVM does not answer.
pub fn check_saved<'a>(
    kvm: &Kvm,
    saved: impl Iterator<Item = &'a [kvm_cpuid_entry2]>,
) -> Result<(), CpuError> {
    let mut host = host_leaves(kvm)?;
    if is_emulated() {
        // There a guest's programs run on the processor itself, and KVM shows what that has, whatever was asked.
        for word in Word::ALL {
            if let Some(shown) = host.word_mut(word) {
                *shown |= of_processor(word);
            }
        }
    }
    saved
        .map(Leaves::new)
        .try_for_each(|saved| compare(&saved, &host))
}

pub(super) fn compare(saved: &Leaves, host: &Leaves) -> Result<(), CpuError> {
    let (theirs, ours) = (vendor(saved), vendor(host));
    if theirs != ours {
        return Err(CpuError::OtherVendor { theirs, ours });
    }
    let mut missing: Vec<String> = Word::ALL
        .into_iter()
        .flat_map(|word| {
            let lost = saved.word(word) & !host.word(word) & !not_the_hosts(word);
            (0..u32::BITS)
                .filter(move |bit| lost >> bit & 1 != 0)
                .map(move |bit| name(word, bit))
        })
        .collect();
    let lost = state(saved) & !state(host);
    if lost != 0 {
        missing.push(format!("the extended state {lost:#x}"));
    }
    match missing.is_empty() {
        true => Ok(()),
        false => Err(CpuError::Lost {
            missing: missing.join(", "),
        }),
    }
}

fn of_processor(word: Word) -> u32 {
    let (function, index, register) = word.place();
    let leaf = __cpuid_count(function, index);
    match register {
        Register::Eax => leaf.eax,
        Register::Ebx => leaf.ebx,
        Register::Ecx => leaf.ecx,
        Register::Edx => leaf.edx,
    }
}

fn not_the_hosts(word: Word) -> u32 {
    let topology = OF_TOPOLOGY.map(|feature| (feature.word, feature.mask()));
    let all = TURNED_ON.into_iter().chain(topology);
    all.filter(|(of, _)| *of == word)
        .fold(0, |mask, (_, bit)| mask | bit)
}

fn name(word: Word, bit: u32) -> String {
    let known = [PLATFORM, LEVEL_2, LEVEL_3, LEVEL_4];
    let found = known
        .into_iter()
        .flatten()
        .find(|feature| feature.word == word && feature.bit == bit);
    found.map_or_else(
        || format!("bit {bit} of {word:?}"),
        |feature| feature.name.to_owned(),
    )
}

/// As `GenuineIntel`; nothing where there is no such leaf.
fn vendor(leaves: &Leaves) -> String {
    let parts = leaves.get(BASIC, 0).map(|leaf| [leaf.ebx, leaf.edx, leaf.ecx]);
    let bytes: Vec<u8> = parts.into_iter().flatten().flat_map(u32::to_le_bytes).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The components of extended state that a guest may use, as in XCR0.
fn state(leaves: &Leaves) -> u64 {
    let sizes = leaves.get(EXTENDED_STATE, 0);
    sizes.map_or(0, |leaf| u64::from(leaf.edx) << 32 | u64::from(leaf.eax))
}
