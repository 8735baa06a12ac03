//! Names of kernel objects, made from EC2 ids.
//!
//! An id is checked before it becomes part of a path, an interface name or a rule: a prefix and hex digits only.

use crate::spec::VpcSpec;

/// The inner end of a VPC's uplink, inside its namespace.
pub(crate) const UPLINK: &str = "uplink";

/// Of the outer ends of all uplinks, in the root namespace.
pub(crate) const UPLINK_PREFIX: &str = "hv";

/// Interface names have at most 15 characters (IFNAMSIZ less the zero).
const TAP_DIGITS: usize = 12;
const UPLINK_DIGITS: usize = 11;

/// `tap` and the first 12 digits of the interface's id. Unique within a VPC's namespace, which a specification
/// that would break it is refused for.
pub fn tap_name(eni_id: &str) -> String {
    format!("tap{}", digits(eni_id, TAP_DIGITS))
}

/// `hv` and the first 11 digits of the VPC's id: the outer end of its uplink, in the root namespace.
pub fn uplink_name(vpc_id: &str) -> String {
    format!("{UPLINK_PREFIX}{}", digits(vpc_id, UPLINK_DIGITS))
}

/// The nftables table of family `inet` that a VPC has in the root namespace.
pub fn root_table(vpc: &VpcSpec) -> String {
    root_table_of(&vpc.vpc_id)
}

pub(crate) fn root_table_of(vpc_id: &str) -> String {
    format!("hearth-{vpc_id}")
}

/// Whether `id` is `prefix`, a hyphen, and 8 or 17 lower-case hex digits, as all EC2 ids are.
pub(crate) fn is_id(prefix: &str, id: &str) -> bool {
    id.strip_prefix(prefix)
        .and_then(|rest| rest.strip_prefix('-'))
        .is_some_and(|digits| {
            matches!(digits.len(), 8 | 17) && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        })
}

fn digits(id: &str, count: usize) -> String {
    id.split_once('-')
        .map_or(id, |(_, digits)| digits)
        .chars()
        .take(count)
        .collect()
}

/// `02:0a:...`, as `ip` and `nft` write it.
pub(crate) fn mac_text(mac: &[u8; 6]) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}
