use proptest::prelude::*;

use super::features::{Feature, LEVEL_2, LEVEL_3, LEVEL_4, NESTED_VIRTUALIZATION, PLATFORM, TOPOEXT, Word};
use super::leaves::{
    AMD_CACHES, AMD_TOPOLOGY, AMD_VIRTUALIZATION, BASIC, CACHES, EXTENDED, EXTENDED_STATE, FEATURES, SIZES,
    STRUCTURED_FEATURES, TOPOLOGY, TOPOLOGY_V2,
};
use super::models::REPEATED;
use super::*;

const LEVELS: [&[Feature]; 4] = [PLATFORM, LEVEL_2, LEVEL_3, LEVEL_4];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Vendor {
    Intel,
    Amd,
}

/// A host that has the first `levels` of the tables, and `more` in every word of features.
fn host(vendor: Vendor, levels: usize, more: u32) -> Leaves {
    let mut leaves = Leaves::new(&[]);
    let name = match vendor {
        Vendor::Intel => *b"GenuntelineI",
        Vendor::Amd => *b"AuthcAMDenti",
    };
    let part = |at: usize| u32::from_le_bytes(name[at..at + 4].try_into().unwrap());
    leaves.add(BASIC, 0, [0x20, part(0), part(4), part(8)]);
    leaves.add(EXTENDED, 0, [0x8000_0021, 0, 0, 0]);
    leaves.add(FEATURES, 0, [0x0006_06a6, 0x0012_0800, 0, 0]);
    leaves.add(STRUCTURED_FEATURES, 0, [3, 0, 0, 0]);
    for index in 1..=3 {
        leaves.add(STRUCTURED_FEATURES, index, [0; 4]);
    }
    leaves.add(EXTENDED_STATE, 0, [0x2e7, 576, 2696, 0]);
    leaves.add(EXTENDED_STATE, 1, [0, 0, 0x1800, 0]);
    for (index, size, offset) in [
        (2, 256, 576),
        (5, 64, 1088),
        (6, 512, 1152),
        (7, 1024, 1664),
        (9, 8, 2688),
    ] {
        leaves.add(EXTENDED_STATE, index, [size, offset, 0, 0]);
    }
    for function in [
        0x4000_0001,
        0x8000_0001,
        0x8000_0007,
        0x8000_0008,
        0x8000_0021,
        0x14,
    ] {
        leaves.add(function, 0, [0; 4]);
    }
    // L1 data, L1 instructions, L2, L3, the end.
    let (caches, kinds) = match vendor {
        Vendor::Intel => (CACHES, [0x1c00_4121, 0x1c00_4122, 0x1c00_4143, 0x1c03_c163, 0]),
        Vendor::Amd => (AMD_CACHES, [0x121, 0x122, 0x143, 0x4163, 0]),
    };
    for (index, kind) in (0..).zip(kinds) {
        leaves.add(caches, index, [kind, 0x01c0_003f, 0x3f, 0]);
    }
    for word in Word::ALL {
        *leaves.word_mut(word).unwrap() |= more;
    }
    for feature in LEVELS.into_iter().take(levels).flatten() {
        leaves.set(*feature, true);
    }
    leaves.set(TOPOEXT, vendor == Vendor::Amd);
    if vendor == Vendor::Amd {
        *leaves.word_mut(Word::Extended1Edx).unwrap() |= leaves.clone().word(Word::Leaf1Edx) & REPEATED;
    }
    leaves
}

fn cpuid(host: Leaves, model: Model, vcpus: u8, threads_per_core: u8) -> Result<Vec<Leaves>, CpuError> {
    let spec = CpuSpec {
        model,
        threads_per_core,
    };
    let mut model = CpuModel::of(host, &spec, vcpus)?;
    Ok((0..vcpus)
        .map(|id| {
            model.topology.name(&mut model.leaves, id);
            model.leaves.clone()
        })
        .collect())
}

fn at(leaves: &Leaves, function: u32, index: u32) -> [u32; 4] {
    let leaf = leaves.get(function, index).unwrap();
    [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]
}

/// Package, core and thread, as an operating system works them out from leaf 0xb or 0x1f.
fn place(leaves: &Leaves, function: u32) -> (u32, u32, u32) {
    let [thread_bits, threads, kind, id] = at(leaves, function, 0);
    assert_eq!(kind, 0x100);
    let [package_bits, all, kind, same_id] = at(leaves, function, 1);
    assert_eq!((kind, same_id), (0x201, id));
    assert!(threads <= 1 << thread_bits && all <= 1 << package_bits);
    let [_, _, end, _] = at(leaves, function, 2);
    assert_eq!(end, 2, "no third level");
    let core = (id & ((1 << package_bits) - 1)) >> thread_bits;
    (id >> package_bits, core, id & ((1 << thread_bits) - 1))
}

fn vendors() -> impl Strategy<Value = Vendor> {
    prop_oneof![Just(Vendor::Intel), Just(Vendor::Amd)]
}

proptest! {
    #[test]
    fn every_vcpu_is_a_thread_of_its_own_in_one_package(
        vendor in vendors(),
        cores in 1_u8..=32,
        threads_per_core in 1_u8..=2,
    ) {
        let vcpus = cores.min(32 / threads_per_core) * threads_per_core;
        let all = cpuid(host(vendor, 4, 0), Model::Host, vcpus, threads_per_core).unwrap();
        for (id, leaves) in (0..).zip(&all) {
            let core = id / u32::from(threads_per_core);
            let here = (0, core, id % u32::from(threads_per_core));
            prop_assert_eq!(place(leaves, TOPOLOGY), here);
            prop_assert_eq!(place(leaves, TOPOLOGY_V2), here);
            // Leaf 1: initial APIC id, how many the package has room for, HTT.
            let [_, ebx, _, edx] = at(leaves, FEATURES, 0);
            prop_assert_eq!(ebx >> 24, id);
            prop_assert!(ebx >> 16 & 0xff >= u32::from(vcpus));
            prop_assert_eq!(ebx & 0xffff, 0x0800);
            prop_assert_eq!(edx >> 28 & 1, u32::from(vcpus > 1));
        }
    }

    #[test]
    fn caches_are_a_cores_own_but_for_the_last(
        vendor in vendors(),
        cores in 1_u8..=32,
        threads_per_core in 1_u8..=2,
    ) {
        let vcpus = cores.min(32 / threads_per_core) * threads_per_core;
        let all = cpuid(host(vendor, 4, 0), Model::Host, vcpus, threads_per_core).unwrap();
        let function = if vendor == Vendor::Amd { AMD_CACHES } else { CACHES };
        for index in 0..4 {
            let [eax, ..] = at(&all[0], function, index);
            let sharing = (eax >> 14 & 0xfff) + 1;
            if index < 3 {
                prop_assert_eq!(sharing, u32::from(threads_per_core));
            } else {
                prop_assert!(sharing >= u32::from(vcpus) && sharing.is_power_of_two());
            }
            let cores = u32::from(vcpus / threads_per_core);
            prop_assert!(vendor == Vendor::Amd || (eax >> 26) + 1 >= cores);
        }
        prop_assert_eq!(at(&all[0], function, 4)[0], 0, "the end stays the end");
    }

    #[test]
    fn amds_leaves_agree(cores in 1_u8..=32, threads_per_core in 1_u8..=2) {
        let vcpus = cores.min(32 / threads_per_core) * threads_per_core;
        let all = cpuid(host(Vendor::Amd, 4, 0), Model::Host, vcpus, threads_per_core).unwrap();
        for (id, leaves) in (0..).zip(&all) {
            let [_, _, sizes, _] = at(leaves, SIZES, 0);
            prop_assert_eq!(sizes & 0xff, u32::from(vcpus) - 1);
            prop_assert!(1 << (sizes >> 12 & 0xf) >= u32::from(vcpus));
            let [apic, core, node, _] = at(leaves, AMD_TOPOLOGY, 0);
            prop_assert_eq!((apic, node), (id, 0));
            prop_assert_eq!(core & 0xff, id / u32::from(threads_per_core));
            prop_assert_eq!((core >> 8) + 1, u32::from(threads_per_core));
        }
    }

    #[test]
    fn a_baseline_is_the_same_on_every_host_that_has_it(
        vendor in vendors(),
        level in 1_usize..=4,
        newer in 0_usize..=3,
        more in any::<u32>(),
        vcpus in 1_u8..=32,
    ) {
        let model = Model::ALL[level];
        let oldest = cpuid(host(vendor, level, 0), model, vcpus, 1).unwrap();
        let richer = cpuid(host(vendor, (level + newer).min(4), more), model, vcpus, 1).unwrap();
        for (one, other) in oldest.iter().zip(&richer) {
            for word in Word::ALL {
                let known = !word.truths();
                prop_assert_eq!(one.word(word) & known, other.word(word) & known, "{:?}", word);
            }
            let functions = |leaves: &Leaves| {
                let entries = leaves.entries().iter();
                entries.map(|leaf| (leaf.function, leaf.index)).collect::<Vec<_>>()
            };
            prop_assert_eq!(functions(one), functions(other));
            prop_assert_eq!(at(one, EXTENDED_STATE, 0), at(other, EXTENDED_STATE, 0));
        }
    }
}

#[test]
fn a_refusal_names_what_is_missing() {
    let error = cpuid(host(Vendor::Intel, 1, 0), Model::V2, 1, 1).unwrap_err();
    let text = error.to_string();
    assert_eq!(
        text,
        "CPU model x86-64-v2: this host lacks pni, ssse3, cx16, sse4_1, sse4_2, popcnt, lahf_lm, rdtscp"
    );
}

#[test]
fn cores_are_whole() {
    for (vcpus, threads_per_core) in [(0, 1), (1, 2), (31, 2), (4, 0), (4, 3)] {
        let error = Topology::new(vcpus, threads_per_core).unwrap_err();
        assert!(
            matches!(error, CpuError::Topology { .. }),
            "{vcpus}, {threads_per_core}"
        );
    }
}

#[test]
fn extended_state_ends_with_what_the_model_has() {
    for (model, components, size) in [(Model::V2, 0, 0), (Model::V3, 7, 832), (Model::V4, 0xe7, 2688)] {
        let all = cpuid(host(Vendor::Intel, 4, u32::MAX), model, 1, 1).unwrap();
        let [eax, ebx, ecx, _] = at(&all[0], EXTENDED_STATE, 0);
        assert_eq!((eax, ebx, ecx), (components, size, size));
    }
}

#[test]
fn no_guest_may_have_guests() {
    for vendor in [Vendor::Intel, Vendor::Amd] {
        let mut all = host(vendor, 4, u32::MAX);
        all.add(AMD_VIRTUALIZATION, 0, [1, 16, 0, u32::MAX]);
        for model in Model::ALL {
            let leaves = cpuid(all.clone(), model, 1, 1).unwrap().remove(0);
            assert!(NESTED_VIRTUALIZATION.iter().all(|feature| !leaves.has(*feature)));
            assert!(leaves.get(AMD_VIRTUALIZATION, 0).is_none());
        }
    }
}

#[test]
fn the_tables_name_each_feature_once() {
    let all: Vec<Feature> = LEVELS.into_iter().flatten().copied().collect();
    for (index, feature) in all.iter().enumerate() {
        let again = all[index + 1..].iter().find(|other| {
            (other.word, other.bit) == (feature.word, feature.bit) || other.name == feature.name
        });
        assert_eq!(again, None);
        assert_eq!(feature.word.truths() & feature.mask(), 0);
    }
}

#[test]
fn specs_name_models_and_older_ones_need_not() {
    for model in Model::ALL {
        let json = format!("{{\"model\":\"{model}\"}}");
        let spec: CpuSpec = serde_json::from_str(&json).unwrap();
        assert_eq!((spec.model, spec.threads_per_core), (model, 1));
    }
    assert!(serde_json::from_str::<CpuSpec>("{\"model\":\"pentium\"}").is_err());
}

#[test]
fn kvm_takes_thirty_two_vcpus() {
    let Ok(kvm) = Kvm::new() else {
        eprintln!("SKIPPED: kvm_takes_thirty_two_vcpus: absent: /dev/kvm");
        return;
    };
    let spec = CpuSpec {
        model: Model::Host,
        threads_per_core: 2,
    };
    let mut model = CpuModel::new(&kvm, &spec, 32).unwrap();
    let vm = kvm.create_vm().unwrap();
    vm.create_irq_chip().unwrap();
    for id in 0..32 {
        let vcpu = vm.create_vcpu(u64::from(id)).unwrap();
        model.apply(&vcpu, id).unwrap();
        let taken = vcpu.get_cpuid2(KVM_MAX_CPUID_ENTRIES).unwrap();
        let place = place(&Leaves::new(taken.as_slice()), TOPOLOGY);
        assert_eq!(place, (0, u32::from(id) / 2, u32::from(id) % 2));
    }
}

#[test]
fn a_saved_processor_goes_on_where_the_host_has_as_much() {
    let saved = |vendor, levels| {
        let spec = CpuSpec::default();
        CpuModel::of(host(vendor, levels, 0), &spec, 2).unwrap().leaves
    };
    let lost = |saved: &Leaves, host: &Leaves| saved::compare(saved, host).unwrap_err().to_string();
    for vendor in [Vendor::Intel, Vendor::Amd] {
        for levels in 1..=4 {
            let theirs = saved(vendor, levels);
            for here in levels..=4 {
                saved::compare(&theirs, &host(vendor, here, 0)).unwrap();
            }
        }
    }
    let newer = saved(Vendor::Intel, 3);
    let why = lost(&newer, &host(Vendor::Intel, 2, 0));
    assert!(
        why.contains("fma, movbe, aes") && why.contains("host lacks"),
        "{why}"
    );
    let why = lost(&newer, &host(Vendor::Amd, 3, 0));
    assert!(
        why.contains("GenuineIntel") && why.contains("AuthenticAMD"),
        "{why}"
    );
    // A bit that has no name here is one all the same.
    let mut odd = newer.clone();
    *odd.word_mut(Word::Leaf7Edx).unwrap() |= 1 << 5;
    let why = lost(&odd, &host(Vendor::Intel, 3, 0));
    assert!(why.contains("bit 5 of Leaf7Edx"), "{why}");
    // What the guest has turned on is its own affair; what state it may have is not.
    let mut on = newer.clone();
    *on.word_mut(Word::Leaf1Ecx).unwrap() |= 1 << 27;
    saved::compare(&on, &host(Vendor::Intel, 3, 0)).unwrap();
    let mut less = host(Vendor::Intel, 3, 0);
    less.get_mut(EXTENDED_STATE, 0).unwrap().eax = 7;
    let why = lost(&newer, &less);
    assert!(why.contains("extended state 0x2e0"), "{why}");
}
