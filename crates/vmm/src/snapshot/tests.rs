use super::*;

fn about(memory_mib: u64) -> About {
    About {
        id: Uuid::from_u128(7),
        base: None,
        instance_id: "i-0123456789abcdef0".into(),
        vcpus: 0,
        memory_mib,
        cpu: CpuSpec::default(),
        devices: vec![SavedSlot {
            slot: 1,
            kind: "rng".into(),
            leaving: false,
        }],
    }
}

fn sections(about: &About, pages: &PageSet, checksums: &[u32]) -> Vec<(Name, Vec<u8>)> {
    vec![
        (ABOUT, encode("", about).unwrap()),
        (PAGES, encode("", &(pages.encoded(), checksums)).unwrap()),
        (VCPUS, encode("", &Vec::<VcpuState>::new()).unwrap()),
        (MACHINE, Vec::new()),
        (DEVICES, Vec::new()),
    ]
}

#[test]
fn sizes_that_the_file_does_not_back_are_refused_before_they_are_believed() {
    let refused = |about: &About, pages: &PageSet, checksums: &[u32], part: &str| {
        let file = format::encode(&sections(about, pages, checksums));
        let error = Snapshot::decode(&file).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    };
    let none = PageSet::none(0);
    refused(&about(u64::MAX), &none, &[], "description");
    refused(&about(1 << 24), &none, &[1], "page table");
    refused(&about(2), &PageSet::all(256), &[1, 2], "page table");
    // The page table holds; what follows is empty.
    refused(&about(2), &PageSet::all(512), &[1, 2], "machine");
}

#[test]
fn whatever_stands_in_a_section_is_refused_or_read_and_never_a_panic() {
    let good = sections(&about(1), &PageSet::all(256), &[1]);
    for section in 0..good.len() {
        let content = good[section].1.clone();
        for at in 0..content.len() {
            for value in [0, 0x7f, 0x80, 0xff] {
                let mut sections = good.clone();
                sections[section].1[at] = value;
                let _ = Snapshot::decode(&format::encode(&sections));
            }
            let mut sections = good.clone();
            sections[section].1.truncate(at);
            assert!(Snapshot::decode(&format::encode(&sections)).is_err());
        }
    }
    for missing in 0..good.len() {
        let mut sections = good.clone();
        sections.remove(missing);
        assert!(Snapshot::decode(&format::encode(&sections)).is_err());
    }
}
