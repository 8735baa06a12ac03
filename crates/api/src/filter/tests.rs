use proptest::prelude::*;

use super::*;
use crate::v1::{GroupIdentifier, Instance, InstanceState};

fn filter(name: &str, values: &[&str]) -> Filter {
    Filter {
        name: name.into(),
        values: values.iter().map(|v| (*v).into()).collect(),
    }
}

fn tag(key: &str, value: &str) -> Tag {
    Tag {
        key: key.into(),
        value: value.into(),
    }
}

fn pattern_matches(pattern: &str, text: &str) -> bool {
    Pattern::new(pattern).unwrap().matches(text)
}

#[test]
fn wildcards() {
    for (pattern, text, expected) in [
        ("running", "running", true),
        ("running", "Running", false),
        ("t2.*", "t2.micro", true),
        ("*", "", true),
        ("?", "", false),
        ("???", "äöü", true),
        ("*.micro", "t2.micro.micro", true),
        ("a*b*c", "aXbYbZc", true),
        ("a*b*c", "aXbYbZ", false),
        (r"\*", "*", true),
        (r"\*", "x", false),
        (r"a\?b", "a?b", true),
        (r"a\\b", r"a\b", true),
        (r"a\", r"a\", true),
        ("", "", true),
        ("", "x", false),
    ] {
        assert_eq!(pattern_matches(pattern, text), expected, "{pattern} {text}");
    }
}

const KNOWN: Known<Instance> = known! {
    tags: |instance| &instance.tags;
    "instance-state-name" => state.name,
    "instance-state-code" => state.code,
    "instance.group-id" => security_groups.group_id,
    "ip-address" => public_ip_address,
    "launch-time" => launch_time,
    "network-interface.addresses.primary" => network_interfaces.private_ip_addresses.primary,
    "outpost-arn" => none,
    "ena-support" => (no),
};
const UNTAGGED: Known<Instance> = known! { "vpc-id" => vpc_id };

fn instance(state: &str, tags: &[Tag]) -> Instance {
    let group = |id: &str| GroupIdentifier {
        group_id: id.into(),
        group_name: String::new(),
    };
    Instance {
        state: Some(InstanceState {
            code: 16,
            name: state.into(),
        }),
        tags: tags.to_vec(),
        security_groups: vec![group("sg-1"), group("sg-2")],
        launch_time: Some(prost_types::Timestamp {
            seconds: 1_700_000_000,
            nanos: 5_000_000,
        }),
        ..Instance::default()
    }
}

fn passes(filters: &[Filter], instance: &Instance) -> bool {
    Filters::new(filters, &KNOWN).unwrap().matches(instance)
}

#[test]
fn values_are_or_and_filters_are_and() {
    let filters = [
        filter("instance-state-name", &["pending", "running"]),
        filter("tag:Name", &["web*"]),
    ];
    let (web, db) = ([tag("Name", "web-1")], [tag("Name", "db-1")]);
    assert!(passes(&filters, &instance("running", &web)));
    assert!(passes(&filters, &instance("pending", &web)));
    assert!(!passes(&filters, &instance("stopped", &web)));
    assert!(!passes(&filters, &instance("running", &db)));
    assert!(!passes(&filters, &instance("running", &[])));
}

#[test]
fn members_are_found_wherever_they_are() {
    for (name, value, expected) in [
        ("instance-state-code", "16", true),
        ("instance.group-id", "sg-2", true),
        ("instance.group-id", "sg-3", false),
        // What a message does not have matches nothing.
        ("ip-address", "*", false),
        ("network-interface.addresses.primary", "*", false),
        ("launch-time", "2023-11-14T22:13:20.005Z", true),
        ("launch-time", "2023-11-14*", true),
        ("outpost-arn", "*", false),
        ("ena-support", "false", true),
        ("ena-support", "False", false),
    ] {
        let found = passes(&[filter(name, &[value])], &instance("running", &[]));
        assert_eq!(found, expected, "{name}={value}");
    }
}

#[test]
fn tag_keys_and_empty_values() {
    let (owned, named) = ([tag("Name", "x"), tag("Owner", "")], [tag("Name", "Owner")]);
    assert!(passes(
        &[filter("tag-key", &["Own?r"])],
        &instance("running", &owned)
    ));
    assert!(!passes(
        &[filter("tag-key", &["Own?r"])],
        &instance("running", &named)
    ));
    assert!(passes(
        &[filter("tag:Owner", &[""])],
        &instance("running", &owned)
    ));
    assert!(!passes(
        &[filter("tag:Owner", &[""])],
        &instance("running", &named)
    ));
}

#[test]
fn unknown_names_are_refused_with_the_known_ones() {
    for name in ["colour", "tag", "tag:"] {
        let error = Filters::new(&[filter(name, &["x"])], &KNOWN).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidParameterValue);
        assert!(
            error.message.contains("outpost-arn, tag-key, tag:<key>"),
            "{}",
            error.message
        );
    }
    assert!(Filters::new(&[filter("tag:Name", &["x"])], &UNTAGGED).is_err());
    assert!(Filters::new(&[filter("vpc-id", &[])], &UNTAGGED).is_err());
}

#[test]
fn ec2s_limits() {
    let many = filter("vpc-id", &["x"; MAX_VALUES]);
    let one = filter("vpc-id", &["x"]);
    assert!(Filters::new(std::slice::from_ref(&many), &UNTAGGED).is_ok());
    let error = Filters::new(&[many, one], &UNTAGGED).unwrap_err();
    assert_eq!(error.code, ErrorCode::FilterLimitExceeded);
    let long = |length: usize| [filter("vpc-id", &[&"ä".repeat(length)])];
    assert!(Filters::new(&long(MAX_LENGTH), &UNTAGGED).is_ok());
    let error = Filters::new(&long(MAX_LENGTH + 1), &UNTAGGED).unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidParameterValue);
}

/// A matcher that goes back compares the whole pattern at each character of the text.
#[test]
fn the_worst_pattern_takes_no_longer_than_a_simple_one() {
    let text = "a".repeat(200_000);
    let time = |pattern: &str| {
        let pattern = Pattern::new(pattern).unwrap();
        let once = || {
            let begin = std::time::Instant::now();
            assert!(!pattern.matches(&text));
            begin.elapsed()
        };
        (0..5).map(|_| once()).min().unwrap()
    };
    let (worst, simple) = (time(&format!("*{}b", "a".repeat(253))), time("*b"));
    assert!(
        worst < simple * 5,
        "{worst:?} for the worst, {simple:?} for a simple one"
    );
}

/// The obvious, exponential matcher.
fn model(pattern: &[char], text: &[char]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        (['*', rest @ ..], _) => (0..=text.len()).any(|n| model(rest, &text[n..])),
        (['?', rest @ ..], [_, tail @ ..]) => model(rest, tail),
        (['\\', c, rest @ ..], [t, tail @ ..]) => c == t && model(rest, tail),
        (['\\'], ['\\']) => true,
        ([c, rest @ ..], [t, tail @ ..]) if *c != '\\' => c == t && model(rest, tail),
        _ => false,
    }
}

proptest! {
    #[test]
    fn agrees_with_the_model(pattern in r"[ab*?\\]{0,8}", text in r"[ab*?\\]{0,10}") {
        let p: Vec<char> = pattern.chars().collect();
        let t: Vec<char> = text.chars().collect();
        prop_assert_eq!(pattern_matches(&pattern, &text), model(&p, &t));
    }

    /// Positions beyond the first word of 64.
    #[test]
    fn long_patterns_agree_too(begin in 50usize..200, pattern in r"[ab*?]{0,8}", text in r"[ab]{0,10}") {
        let (long, same) = ("?".repeat(begin) + &pattern, "x".repeat(begin) + &text);
        prop_assert_eq!(pattern_matches(&long, &same), pattern_matches(&pattern, &text));
    }

    #[test]
    fn escaped_text_matches_itself_alone(text in ".{0,20}", other in ".{0,20}") {
        let escaped: String = text.chars().flat_map(|c| ['\\', c]).collect();
        prop_assert!(pattern_matches(&escaped, &text));
        prop_assert_eq!(pattern_matches(&escaped, &other), text == other);
    }
}
