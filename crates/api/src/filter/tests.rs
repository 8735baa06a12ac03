use proptest::prelude::*;

use super::*;

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

#[test]
fn values_are_or_and_filters_are_and() {
    let filters = [
        filter("instance-state-name", &["pending", "running"]),
        filter("tag:Name", &["web*"]),
    ];
    let filters = Filters::new(&filters, &["instance-state-name", "tag"]).unwrap();
    let state = |state: &'static str| move |_: &str| -> Values<'static> { vec![state.into()] };
    let (web, db) = ([tag("Name", "web-1")], [tag("Name", "db-1")]);
    assert!(filters.matches(&web, state("running")));
    assert!(filters.matches(&web, state("pending")));
    assert!(!filters.matches(&web, state("stopped")));
    assert!(!filters.matches(&db, state("running")));
    assert!(!filters.matches(&[], state("running")));
}

#[test]
fn tag_keys() {
    let filters = [filter("tag-key", &["Own?r"])];
    let filters = Filters::new(&filters, &["tag"]).unwrap();
    let (owned, named) = ([tag("Name", "x"), tag("Owner", "")], [tag("Name", "Owner")]);
    assert!(filters.matches(&owned, |_| Values::new()));
    assert!(!filters.matches(&named, |_| Values::new()));
}

#[test]
fn unknown_names_are_refused_with_the_known_ones() {
    for name in ["colour", "tag", "tag:"] {
        let error = Filters::new(&[filter(name, &["x"])], &["vpc-id", "tag"]).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidParameterValue);
        assert!(
            error.message.contains("tag:<key>, tag-key, vpc-id"),
            "{}",
            error.message
        );
    }
    assert!(Filters::new(&[filter("tag:Name", &["x"])], &["vpc-id"]).is_err());
    assert!(Filters::new(&[filter("vpc-id", &[])], &["vpc-id"]).is_err());
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

    #[test]
    fn escaped_text_matches_itself_alone(text in ".{0,20}", other in ".{0,20}") {
        let escaped: String = text.chars().flat_map(|c| ['\\', c]).collect();
        prop_assert!(pattern_matches(&escaped, &text));
        prop_assert_eq!(pattern_matches(&escaped, &other), text == other);
    }
}
