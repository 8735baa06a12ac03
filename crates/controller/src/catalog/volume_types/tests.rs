use super::*;
use VolumeType::{Gp2, Gp3, Io1, Io2, Sc1, St1, Standard};

/// Type, GiB, IOPS and throughput of a new volume, and the code that they are refused with; empty: they are admitted.
type Case = (VolumeType, i32, Option<i32>, Option<i32>, &'static str);

const CASES: &[Case] = &[
    (Gp2, 1, None, None, ""),
    (Gp2, 0, None, None, "InvalidParameterValue"),
    (Gp2, -1, None, None, "InvalidParameterValue"),
    (Gp2, 16_384, None, None, ""),
    (Gp2, 16_385, None, None, "InvalidParameterValue"),
    (Gp2, 1, Some(3000), None, "InvalidParameterCombination"),
    (Gp2, 1, None, Some(200), "InvalidParameterDependency"),
    (Gp3, 1, None, None, ""),
    (Gp3, 65_536, None, None, ""),
    (Gp3, 65_537, None, None, "InvalidParameterValue"),
    (Gp3, 1, Some(3000), None, ""),
    (Gp3, 1, Some(2999), None, "InvalidParameterValue"),
    (Gp3, 1, Some(0), None, "InvalidParameterValue"),
    (Gp3, 1, Some(3001), None, "InvalidParameterValue"),
    (Gp3, 20, Some(10_000), None, ""),
    (Gp3, 20, Some(10_001), None, "InvalidParameterValue"),
    (Gp3, 160, Some(80_000), None, ""),
    (Gp3, 200, Some(80_001), None, "InvalidParameterValue"),
    (Gp3, 1, None, Some(125), ""),
    (Gp3, 1, None, Some(124), "InvalidParameterValue"),
    (Gp3, 1, None, Some(750), ""),
    (Gp3, 1, None, Some(751), "InvalidParameterValue"),
    (Gp3, 16, Some(8000), Some(2000), ""),
    (Gp3, 20, Some(9000), Some(2001), "InvalidParameterValue"),
    (Io1, 4, Some(200), None, ""),
    (Io1, 4, Some(201), None, "InvalidParameterValue"),
    (Io1, 4, None, None, "MissingParameter"),
    (Io1, 3, Some(100), None, "InvalidParameterValue"),
    (Io1, 4, Some(99), None, "InvalidParameterValue"),
    (Io1, 1280, Some(64_000), None, ""),
    (Io1, 2000, Some(64_001), None, "InvalidParameterValue"),
    (Io2, 4, Some(4000), None, ""),
    (Io2, 4, Some(4001), None, "InvalidParameterCombination"),
    (Io2, 256, Some(256_000), None, ""),
    (Io2, 300, Some(256_001), None, "InvalidParameterValue"),
    (Io2, 4, Some(100), Some(125), "InvalidParameterDependency"),
    (St1, 125, None, None, ""),
    (St1, 124, None, None, "InvalidParameterValue"),
    (St1, 125, Some(100), None, "InvalidParameterCombination"),
    (Sc1, 16_384, None, None, ""),
    (Sc1, 16_385, None, None, "InvalidParameterValue"),
    (Standard, 1024, None, None, ""),
    (Standard, 1025, None, None, "InvalidParameterValue"),
    (Standard, i32::MIN, None, None, "InvalidParameterValue"),
    (
        Gp3,
        i32::MAX,
        Some(i32::MAX),
        Some(i32::MIN),
        "InvalidParameterValue",
    ),
];

#[test]
fn volumes_of_each_type_have_ec2s_limits() {
    for (kind, size, iops, throughput, expected) in CASES {
        let found = VolumeSpec::new(*kind, *size, *iops, *throughput);
        let code = found
            .as_ref()
            .map_or_else(|error| error.code.to_string(), |_| String::new());
        assert_eq!(
            code, *expected,
            "{kind:?} {size} {iops:?} {throughput:?}: {found:?}"
        );
    }
}

#[test]
fn what_is_not_given_is_what_ec2_gives() {
    let gp3 = VolumeSpec::new(Gp3, 8, None, None).unwrap();
    assert_eq!(gp3, VolumeSpec::plain(8));
    assert_eq!((gp3.told_iops(), gp3.throughput), (Some(3000), Some(125)));
    for (gib, iops) in [
        (1, 100),
        (33, 100),
        (34, 102),
        (5333, 15_999),
        (5334, 16_000),
        (16_384, 16_000),
    ] {
        assert_eq!(
            VolumeSpec::new(Gp2, gib, None, None).unwrap().told_iops(),
            Some(iops),
            "{gib}"
        );
    }
    assert_eq!(VolumeSpec::new(St1, 500, None, None).unwrap().told_iops(), None);
}

#[test]
fn a_volume_is_modified_to_what_ec2_makes_of_it() {
    let gp2 = VolumeSpec::new(Gp2, 10, None, None).unwrap();
    let gp3 = gp2.modified(Some(Gp3), None, None, None).unwrap();
    assert_eq!(gp3, VolumeSpec::plain(10));
    let faster = gp3.modified(None, Some(20), Some(5000), Some(500)).unwrap();
    assert_eq!(
        (faster.size_gib, faster.iops, faster.throughput),
        (20, Some(5000), Some(500))
    );
    // What is not named stays.
    assert_eq!(
        faster.modified(None, Some(21), None, None).unwrap().iops,
        Some(5000)
    );
    let io2 = faster.modified(Some(Io2), None, None, None).unwrap();
    assert_eq!((io2.iops, io2.throughput), (Some(3000), None));
    let back = io2.modified(Some(Gp2), None, None, None).unwrap();
    assert_eq!((back.iops, back.throughput), (None, None));
    let refused = |size, kind| gp2.modified(kind, size, None, None).unwrap_err().message;
    assert!(refused(Some(9), None).contains("New size cannot be smaller than existing size"));
    assert!(refused(None, Some(St1)).contains("at least 125"));
}

#[test]
fn hosts_are_told_limits_of_every_type() {
    for (spec, iops, throughput_mib) in [
        (VolumeSpec::plain(1), 3000, 125),
        (
            VolumeSpec::new(Gp3, 100, Some(16_000), Some(1000)).unwrap(),
            16_000,
            1000,
        ),
        (VolumeSpec::new(Gp2, 1, None, None).unwrap(), 3000, 128),
        (VolumeSpec::new(Gp2, 2000, None, None).unwrap(), 6000, 250),
        (VolumeSpec::new(Io1, 4, Some(100), None).unwrap(), 100, 25),
        (
            VolumeSpec::new(Io1, 1280, Some(64_000), None).unwrap(),
            64_000,
            1000,
        ),
        (
            VolumeSpec::new(Io2, 256, Some(256_000), None).unwrap(),
            256_000,
            4000,
        ),
        (VolumeSpec::new(St1, 125, None, None).unwrap(), 120, 30),
        (VolumeSpec::new(St1, 16_384, None, None).unwrap(), 2000, 500),
        (VolumeSpec::new(Sc1, 125, None, None).unwrap(), 36, 9),
        (VolumeSpec::new(Standard, 1, None, None).unwrap(), 200, 90),
    ] {
        assert_eq!(spec.limits(), Limits { iops, throughput_mib }, "{spec:?}");
    }
}
