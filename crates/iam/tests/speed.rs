//! How long a decision takes: `cargo test --release -p hearth-iam --test speed -- --ignored --nocapture`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use hearth_iam::{Context, Decision, Kind, Policy, Request, decide};
use serde_json::json;

const BATCH: u32 = 1000;
const RESOURCE: &str = "arn:aws:ec2:us-east-1:123456789012:instance/i-0123456789abcdef0";

fn context() -> Context {
    let mut context = Context::default();
    context.set("aws:username", "ada");
    context.set("aws:SourceIp", "203.0.113.7");
    context.set("aws:CurrentTime", "2026-11-27T12:00:00Z");
    context.set("aws:ResourceTag/Owner", "ada");
    context
}

fn parse(document: &serde_json::Value) -> Policy {
    Policy::parse(Kind::Identity, &document.to_string()).unwrap()
}

fn measure(name: &str, policies: &[Policy], expected: Decision) {
    let context = context();
    let request = Request {
        action: "ec2:StartInstances",
        resource: RESOURCE,
        context: &context,
    };
    // The shortest batch: what else the machine does only makes batches longer.
    let batch = || {
        let begin = Instant::now();
        for _ in 0..BATCH {
            assert_eq!(decide(black_box(policies), black_box(&request)), expected);
        }
        begin.elapsed() / BATCH
    };
    let shortest = (0..200).map(|_| batch()).min();
    println!("{name}: {:?}", shortest.unwrap());
}

#[test]
#[ignore = "a measurement"]
fn a_decision() {
    let administrator = json!({
        "Version": "2012-10-17",
        "Statement": [{ "Effect": "Allow", "Action": "*", "Resource": "*" }],
    });
    measure("AdministratorAccess", &[parse(&administrator)], Decision::Allowed);

    // All of them are read before the last one allows.
    let statement = |n: usize, last: bool| {
        json!({
            "Effect": "Allow",
            "Action": ["ec2:Describe*", "ec2:*Instances", format!("s3:Get{n}")],
            "Resource": format!("arn:aws:ec2:*:*:instance/{}", if last { "*".to_owned() } else { format!("i-{n}*") }),
            "Condition": {
                "StringEquals": { "aws:ResourceTag/Owner": "${aws:username}" },
                "IpAddress": { "aws:SourceIp": ["192.0.2.0/24", "203.0.113.0/24"] },
            },
        })
    };
    let policy = |last: bool| {
        let statements: Vec<_> = (1..=10).map(|n| statement(n, last && n == 10)).collect();
        parse(&json!({ "Version": "2012-10-17", "Statement": statements }))
    };
    let policies: Vec<Policy> = (1..=10).map(|n| policy(n == 10)).collect();
    measure("10 policies of 10 statements", &policies, Decision::Allowed);
}

/// The largest documents, full of what takes longest, and the longest texts.
#[test]
fn hostile_policies_take_a_bounded_time() {
    let long = "a".repeat(2048);
    let mut context = Context::default();
    context.set("aws:v", &long);
    context.set("aws:w", "a".repeat(64));
    for value in [
        "*a".repeat(4000),
        "*a?".repeat(3000),
        format!("*{}b*", "${aws:w}?".repeat(1000)),
    ] {
        let document = json!({
            "Version": "2012-10-17",
            "Statement": {
                "Effect": "Allow",
                "Action": "*",
                "Resource": "*",
                "Condition": { "StringLike": { "aws:v": value + "b" } },
            },
        });
        let policy = parse(&document);
        let request = Request {
            action: "ec2:StartInstances",
            resource: RESOURCE,
            context: &context,
        };
        let begin = Instant::now();
        assert_eq!(decide([&policy], &request), Decision::NotAllowed);
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    }
}
