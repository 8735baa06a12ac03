//! What holds for all policies.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use hearth_iam::{Context, Decision, Kind, Policy, Principal, Request, Trust, decide, trusts};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

/// A statement out of few names, so that many match.
fn statement(effects: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let actions = select(vec!["*", "ec2:*", "ec2:Run*", "ec2:RunInstances", "iam:GetUser"]);
    let resources = select(vec![
        "*",
        "arn:aws:ec2:*:*:instance/*",
        "arn:aws:ec2:us-east-1:123456789012:instance/${aws:username}",
    ]);
    let operators = select(vec![
        "StringEquals",
        "StringNotEquals",
        "StringLikeIfExists",
        "ForAllValues:StringEquals",
        "ForAnyValue:StringNotLike",
    ]);
    let values = proptest::collection::vec(select(vec!["ada", "a*", "${aws:username}"]), 1..3);
    (
        select(effects),
        any::<[bool; 3]>(),
        actions,
        resources,
        operators,
        values,
    )
        .prop_map(
            |(effect, [action, resource, condition], actions, resources, operator, values)| {
                let mut statement = json!({ "Effect": effect });
                statement[if action { "Action" } else { "NotAction" }] = actions.into();
                statement[if resource { "Resource" } else { "NotResource" }] = resources.into();
                if condition {
                    statement["Condition"] = json!({ operator: { "aws:Name": values } });
                }
                statement
            },
        )
}

fn policy(effects: &'static [&'static str]) -> impl Strategy<Value = Policy> {
    proptest::collection::vec(statement(effects), 1..4).prop_map(|statements| {
        let document = json!({ "Version": "2012-10-17", "Statement": statements });
        Policy::parse(Kind::Identity, &document.to_string()).unwrap()
    })
}

fn policies() -> impl Strategy<Value = Vec<Policy>> {
    proptest::collection::vec(policy(&["Allow", "Allow", "Deny"]), 0..5)
}

fn context() -> impl Strategy<Value = Context> {
    let values = proptest::collection::vec(select(vec!["ada", "bob", "abc", ""]), 0..3);
    (values, any::<bool>()).prop_map(|(values, user)| {
        let mut context = Context::default();
        values
            .into_iter()
            .for_each(|value| context.add("aws:Name", value));
        if user {
            context.set("aws:username", "ada");
        }
        context
    })
}

fn resource() -> impl Strategy<Value = &'static str> {
    select(vec![
        "*",
        "arn:aws:ec2:us-east-1:123456789012:instance/ada",
        "arn:aws:ec2:us-east-1:123456789012:instance/i-1",
    ])
}

fn decision(policies: &[Policy], resource: &str, context: &Context) -> Decision {
    let request = Request {
        action: "ec2:RunInstances",
        resource,
        context,
    };
    decide(policies, &request)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn denies_never_allow(mut policies in policies(), denies in policy(&["Deny"]), context in context(), resource in resource()) {
        let before = decision(&policies, resource, &context);
        policies.push(denies);
        let after = decision(&policies, resource, &context);
        prop_assert!(after == before || after == Decision::Denied);
    }

    #[test]
    fn allows_never_deny(mut policies in policies(), allows in policy(&["Allow"]), context in context(), resource in resource()) {
        let before = decision(&policies, resource, &context);
        policies.push(allows);
        let after = decision(&policies, resource, &context);
        prop_assert!(after == before || (before == Decision::NotAllowed && after == Decision::Allowed));
    }

    #[test]
    fn the_order_of_policies_does_not_matter(policies in policies().prop_shuffle(), context in context(), resource in resource()) {
        let forwards = decision(&policies, resource, &context);
        let backwards: Vec<Policy> = policies.iter().rev().cloned().collect();
        prop_assert_eq!(forwards, decision(&backwards, resource, &context));
    }

    #[test]
    fn policies_decide_together_what_the_strongest_decides(policies in policies(), context in context(), resource in resource()) {
        let alone: Vec<Decision> = policies
            .iter()
            .map(|policy| decision(std::slice::from_ref(policy), resource, &context))
            .collect();
        let strongest = [Decision::Denied, Decision::Allowed].into_iter().find(|found| alone.contains(found));
        prop_assert_eq!(decision(&policies, resource, &context), strongest.unwrap_or(Decision::NotAllowed));
    }

    #[test]
    fn an_operator_and_its_negation_exclude_each_other(
        operator in select(vec![("StringEquals", "StringNotEquals"), ("StringLike", "StringNotLike"), ("ArnLike", "ArnNotLike")]),
        values in proptest::collection::vec(select(vec!["ada", "a*", "${aws:username}"]), 1..3),
        context in context(),
    ) {
        let holds = |operator: &str| {
            let condition = json!({ operator: { "aws:Name": values } });
            let document = json!({
                "Version": "2012-10-17",
                "Statement": { "Effect": "Allow", "Action": "*", "Resource": "*", "Condition": condition },
            });
            let policy = Policy::parse(Kind::Identity, &document.to_string()).unwrap();
            decision(&[policy], "*", &context) == Decision::Allowed
        };
        prop_assert_ne!(holds(operator.0), holds(operator.1));
    }

    #[test]
    fn arbitrary_text_is_parsed_or_refused(text in "\\PC{0,200}") {
        let _ = Policy::parse(Kind::Identity, &text);
        let _ = Policy::parse(Kind::Trust, &text);
        let _ = Policy::parse(Kind::Key, &text);
    }

    #[test]
    fn arbitrary_words_are_parsed_or_refused(
        words in proptest::collection::vec(
            select(vec![
                "{", "}", "[", "]", ":", ",", "\"Statement\"", "\"Effect\"", "\"Allow\"", "\"Action\"", "\"*\"",
                "\"Resource\"", "\"Principal\"", "\"AWS\"", "\"Condition\"", "\"StringLike\"", "\"aws:x\"", "\"${\"", "1", "null",
            ]),
            0..40,
        )
    ) {
        let text = words.concat();
        let _ = Policy::parse(Kind::Identity, &text);
        let _ = Policy::parse(Kind::Trust, &text);
        let _ = Policy::parse(Kind::Key, &text);
    }

    /// Texts in a policy and in a request, whatever they are.
    #[test]
    fn arbitrary_texts_decide_something(texts in proptest::collection::vec("[$'{}*?:,aä ]{0,12}", 6)) {
        let [resource, value, key, found, asked, name] = &texts[..] else { unreachable!() };
        let document = json!({
            "Version": "2012-10-17",
            "Statement": {
                "Effect": "Allow",
                "Action": "*",
                "Resource": format!("arn:aws:s3:::{resource}"),
                "Condition": { "StringLikeIfExists": { format!("aws:{key}"): value }, "ArnLikeIfExists": { "aws:x": value } },
            },
        });
        if let Ok(policy) = Policy::parse(Kind::Identity, &document.to_string()) {
            let mut context = Context::default();
            context.add(key, found);
            context.add("aws:x", found);
            context.add(name, found);
            decision(&[policy], asked, &context);
        }
    }
}

#[test]
fn a_policy_does_only_what_its_kind_does() {
    let identity = r#"{"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}"#;
    let trust = r#"{"Statement": {"Effect": "Allow", "Principal": "*", "Action": "sts:*"}}"#;
    let key = r#"{"Statement": {"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"}}"#;
    let context = Context::default();
    let request = Request {
        action: "sts:AssumeRole",
        resource: "*",
        context: &context,
    };
    let identity = Policy::parse(Kind::Identity, identity).unwrap();
    let service = Principal::Service("ec2.amazonaws.com");
    assert_eq!(trusts([&identity], &service, &request), Trust::NotAllowed);
    let trust = Policy::parse(Kind::Trust, trust).unwrap();
    let key = Policy::parse(Kind::Key, key).unwrap();
    for policy in [&trust, &key] {
        assert_eq!(trusts([policy], &service, &request), Trust::Direct);
        assert_eq!(decide([policy], &request), Decision::NotAllowed);
    }
}

#[test]
fn contexts_have_values() {
    let mut context = Context::default();
    assert_eq!(context.get("aws:username"), None);
    context.set("aws:username", "ada");
    context.add("AWS:UserName", "bob");
    assert_eq!(context.get("aws:USERNAME").unwrap(), ["ada", "bob"]);
    context.set("aws:UserName", "eve");
    assert_eq!(context.get("aws:username").unwrap(), ["eve"]);
}

fn assert_shared<T: Clone + std::fmt::Debug + Send + Sync>() {}

#[test]
fn policies_are_shared_between_threads() {
    assert_shared::<Policy>();
}
