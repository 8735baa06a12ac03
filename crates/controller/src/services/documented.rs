//! Every filter that EC2's documentation names for a call is known here, or is on a list with the reason.

use std::collections::BTreeSet;

use super::*;

/// What `crates/ec2/model/make` has found in the documentation: a call, and the names of its filters, in each line.
const DOCUMENTED: &str = include_str!("../../../ec2/model/filters.txt");

const CATALOGUE: &str = "the catalogue of instance types does not have it";
const NO_SCANS: &str = "no image is looked into for what security advisories name";
/// Filters that are refused: an answer would say what Hearth does not know.
const REFUSED: &[(&str, &str, &str)] = &[
    (
        "DescribeImages",
        "image-allowed",
        "an account has no list of allowed images",
    ),
    (
        "DescribeImages",
        "instance-type-specification.supported-instance-type",
        "an image does not say which types it is for",
    ),
    (
        "DescribeImages",
        "instance-type-specification.unsupported-instance-type",
        "an image does not say which types it is for",
    ),
    (
        "DescribeImages",
        "public-ssm-parameter-name",
        "names of images are tags of their owners, which others do not see",
    ),
    (
        "DescribeImages",
        "scan-result.critical-fix-available-since",
        NO_SCANS,
    ),
    ("DescribeImages", "scan-result.finding-scan-date", NO_SCANS),
    ("DescribeImages", "scan-result.high-fix-available-since", NO_SCANS),
    (
        "DescribeImages",
        "scan-result.highest-finding-severity-label",
        NO_SCANS,
    ),
    (
        "DescribeImages",
        "scan-result.informational-fix-available-since",
        NO_SCANS,
    ),
    ("DescribeImages", "scan-result.low-fix-available-since", NO_SCANS),
    (
        "DescribeImages",
        "scan-result.medium-fix-available-since",
        NO_SCANS,
    ),
    (
        "DescribeInstanceTypes",
        "ebs-info.attachment-limit-type",
        CATALOGUE,
    ),
    (
        "DescribeInstanceTypes",
        "ebs-info.ebs-optimized-info.baseline-iops",
        CATALOGUE,
    ),
    (
        "DescribeInstanceTypes",
        "ebs-info.ebs-optimized-info.baseline-throughput-in-mbps",
        CATALOGUE,
    ),
    (
        "DescribeInstanceTypes",
        "ebs-info.ebs-optimized-info.maximum-bandwidth-in-mbps",
        CATALOGUE,
    ),
    (
        "DescribeInstanceTypes",
        "ebs-info.ebs-optimized-info.maximum-iops",
        CATALOGUE,
    ),
    (
        "DescribeInstanceTypes",
        "ebs-info.ebs-optimized-info.maximum-throughput-in-mbps",
        CATALOGUE,
    ),
    (
        "DescribeInstanceTypes",
        "ebs-info.ebs-optimized-support",
        CATALOGUE,
    ),
    (
        "DescribeInstanceTypes",
        "ebs-info.maximum-ebs-attachments",
        CATALOGUE,
    ),
    (
        "DescribeInstanceTypes",
        "network-info.maximum-network-cards",
        CATALOGUE,
    ),
    (
        "DescribeInstanceTypes",
        "processor-info.sustained-clock-speed-in-ghz",
        CATALOGUE,
    ),
    ("DescribeInstanceTypes", "reboot-migration-support", CATALOGUE),
];

/// The names that the documentation has for a call; tags in one form.
fn documented(call: &str) -> BTreeSet<&'static str> {
    let line = DOCUMENTED
        .lines()
        .find_map(|line| line.strip_prefix(call)?.strip_prefix(' '));
    let names = line.unwrap_or_default().split(' ');
    names
        .map(|name| if name == "tag" { "tag:<key>" } else { name })
        .collect()
}

#[test]
fn filters_that_ec2_documents_are_known() {
    let known = [
        ("DescribeAvailabilityZones", regions::ZONE_FILTERS.told()),
        (
            "DescribeIamInstanceProfileAssociations",
            profile_associations::FILTERS.told(),
        ),
        ("DescribeImages", images::FILTERS.told()),
        (
            "DescribeInstanceCreditSpecifications",
            instances::modest::FILTERS.told(),
        ),
        ("DescribeInstanceStatus", instances::status::FILTERS.told()),
        (
            "DescribeInstanceTypeOfferings",
            instance_types::OFFERING_FILTERS.told(),
        ),
        ("DescribeInstanceTypes", instance_types::FILTERS.told()),
        ("DescribeInstances", instances::filters::FILTERS.told()),
        ("DescribeInternetGateways", internet_gateways::FILTERS.told()),
        ("DescribeKeyPairs", key_pairs::FILTERS.told()),
        ("DescribeNetworkAcls", network_acls::FILTERS.told()),
        ("DescribeNetworkInterfaces", network_interfaces::FILTERS.told()),
        ("DescribePlacementGroups", placement::FILTERS.told()),
        ("DescribeRegions", regions::REGION_FILTERS.told()),
        ("DescribeRouteTables", route_tables::describe::FILTERS.told()),
        (
            "DescribeSecurityGroupRules",
            security_groups::resources::FILTERS.told(),
        ),
        ("DescribeSecurityGroups", security_groups::FILTERS.told()),
        ("DescribeSnapshots", snapshots::describe::FILTERS.told()),
        ("DescribeSubnets", subnets::describe::FILTERS.told()),
        ("DescribeTags", tags::FILTERS.told()),
        ("DescribeVolumeStatus", volumes::status::FILTERS.told()),
        ("DescribeVolumes", volumes::describe::FILTERS.told()),
        (
            "DescribeVolumesModifications",
            volumes::modifications::FILTERS.told(),
        ),
        ("DescribeVpcClassicLink", vpcs::describe::CLASSIC_FILTERS.told()),
        ("DescribeVpcs", vpcs::describe::FILTERS.told()),
    ];
    let mut wrong = Vec::new();
    for (call, known) in &known {
        let documented = documented(call);
        assert!(
            !documented.is_empty(),
            "{call} has no filters in the documentation"
        );
        for name in &documented {
            let is_refused = REFUSED
                .iter()
                .any(|(of, refused, _)| of == call && refused == name);
            if is_refused == known.contains(name) {
                wrong.push(format!("{call} {name}"));
            }
        }
    }
    let unused = REFUSED
        .iter()
        .filter(|(call, name, _)| !documented(call).contains(name));
    wrong.extend(unused.map(|(call, name, _)| format!("{call} {name} is not documented")));
    assert!(wrong.is_empty(), "{wrong:#?}");
}
