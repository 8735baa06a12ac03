use proptest::prelude::*;

use super::*;

const ACCOUNT: &str = "123456789012";

fn permission(protocol: &str, from: Option<i32>, to: Option<i32>, cidr: &str) -> IpPermission {
    IpPermission {
        ip_protocol: protocol.into(),
        from_port: from,
        to_port: to,
        ip_ranges: vec![IpRange {
            cidr_ip: cidr.into(),
            description: String::new(),
        }],
        ..IpPermission::default()
    }
}

fn one(protocol: &str, from: Option<i32>, to: Option<i32>, cidr: &str) -> Result<Wanted, ApiError> {
    normalise(&[permission(protocol, from, to, cidr)], ACCOUNT).map(|mut rules| rules.remove(0))
}

#[test]
fn different_spellings_are_one_rule() {
    let plain = one("tcp", Some(22), Some(22), "10.0.0.0/8").unwrap();
    assert_eq!(plain, one("6", Some(22), Some(22), "10.1.2.3/8").unwrap());
    let all = one("-1", None, None, "0.0.0.0/0").unwrap();
    assert_eq!(all, one("-1", Some(22), Some(23), "0.0.0.0/0").unwrap());
    let ping = one("icmp", Some(8), None, "0.0.0.0/0").unwrap();
    assert_eq!((ping.traffic.from, ping.traffic.to), (8, -1));
}

#[test]
fn what_no_packet_can_be_is_refused() {
    for (protocol, from, to, cidr) in [
        ("tcp", None, None, "0.0.0.0/0"),
        ("tcp", Some(22), None, "0.0.0.0/0"),
        ("tcp", Some(23), Some(22), "0.0.0.0/0"),
        ("tcp", Some(0), Some(65_536), "0.0.0.0/0"),
        ("tcp", Some(-1), Some(22), "0.0.0.0/0"),
        ("tcp", Some(-1), Some(-1), "0.0.0.0/0"),
        ("17", Some(-1), Some(-1), "0.0.0.0/0"),
        ("icmp", Some(-1), Some(3), "0.0.0.0/0"),
        ("icmp", Some(256), Some(0), "0.0.0.0/0"),
        ("sctpx", Some(1), Some(1), "0.0.0.0/0"),
        ("256", None, None, "0.0.0.0/0"),
        ("tcp", Some(22), Some(22), "0.0.0.0"),
        ("tcp", Some(22), Some(22), "300.0.0.0/99"),
        ("tcp", Some(22), Some(22), "10.0.0.0/33"),
        ("tcp", Some(22), Some(22), ""),
    ] {
        let code = one(protocol, from, to, cidr).unwrap_err().code;
        assert_eq!(
            code,
            ErrorCode::InvalidParameterValue,
            "{protocol} {from:?} {to:?} {cidr}"
        );
    }
    assert_eq!(
        normalise(&[], ACCOUNT).unwrap_err().code,
        ErrorCode::MissingParameter
    );
    let nobody = IpPermission {
        ip_protocol: "-1".into(),
        ..IpPermission::default()
    };
    assert!(normalise(&[nobody], ACCOUNT).is_err());
}

#[test]
fn groups_are_those_of_ones_own_account() {
    let of = |user_id: &str| {
        let pair = UserIdGroupPair {
            group_id: "sg-0123456789abcdef0".into(),
            user_id: user_id.into(),
            ..UserIdGroupPair::default()
        };
        let permission = IpPermission {
            ip_protocol: "-1".into(),
            user_id_group_pairs: vec![pair],
            ..IpPermission::default()
        };
        normalise(&[permission], ACCOUNT)
    };
    assert_eq!(of("").unwrap(), of(ACCOUNT).unwrap());
    assert_eq!(
        of("210987654321").unwrap_err().code,
        ErrorCode::InvalidGroupNotFound
    );
}

#[test]
fn a_call_names_a_thousand_rules_at_most() {
    let many = |count: usize| {
        let mut permission = permission("tcp", Some(1), Some(1), "10.0.0.0/8");
        permission.ip_ranges = vec![permission.ip_ranges[0].clone(); count];
        normalise(&[permission], ACCOUNT)
    };
    assert_eq!(many(MAX_RULES_PER_CALL).unwrap().len(), MAX_RULES_PER_CALL);
    let error = many(MAX_RULES_PER_CALL + 1).unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidParameterValue);
}

proptest! {
    #[test]
    fn telling_and_normalising_again_changes_nothing(
        protocol in prop_oneof![Just("tcp".to_owned()), Just("udp".into()), Just("icmp".into()), "[0-9]{1,2}", Just("-1".into())],
        from in 0i32..200, more in 0i32..50, cidr in "[1-9]\\.[0-9]\\.[0-9]\\.[0-9]/[12][0-9]",
    ) {
        let wanted = one(&protocol, Some(from), Some(from + more), &cidr).unwrap();
        let Peer::Cidr(net) = &wanted.peer else { panic!("no CIDR") };
        let row = RuleRow {
            id: "sgr-1".into(),
            region: "local-1".into(),
            group_id: "sg-1".into(),
            is_egress: false,
            protocol: wanted.traffic.protocol,
            from_port: wanted.traffic.from,
            to_port: wanted.traffic.to,
            cidr: net.to_string(),
            referenced_group_id: None,
            description: String::new(),
            account_id: "1".into(),
            created_at: 0,
            tags: Default::default(),
        };
        let told = permissions(std::iter::once(&row), ACCOUNT);
        prop_assert_eq!(normalise(&told, ACCOUNT).unwrap(), vec![wanted]);
    }
}
