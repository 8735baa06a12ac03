//! A table of requests and what policies decide about them, each from a page of AWS's documentation.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use hearth_iam::{Context, Decision, Kind, Layer, Policy, Principal, Request, Trust, decide_within, trusts};
use serde::Deserialize;
use serde_json::{Value, json};

/// Requests to the same policies.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    page: String,
    /// Identity policies.
    #[serde(default)]
    policies: Vec<Value>,
    /// What limits what they give.
    boundary: Option<Vec<Value>>,
    session: Option<Vec<Value>>,
    /// In place of policies: the condition of a statement that allows everything.
    condition: Option<Value>,
    /// In place of policies: a trust policy.
    trust: Option<Value>,
    /// In place of policies: a key's.
    key: Option<Value>,
    action: Option<String>,
    resource: Option<String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    action: Option<String>,
    resource: Option<String>,
    #[serde(default)]
    context: BTreeMap<String, OneOrMore>,
    principal: Option<Who>,
    expect: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Who {
    User { user: String },
    Role { role: String, session: String },
    Root { root: String },
    Service { service: String },
}

impl Who {
    fn principal(&self) -> Principal<'_> {
        match self {
            Who::User { user } => Principal::User(user),
            Who::Role { role, session } => Principal::AssumedRole {
                role_arn: role,
                session_arn: session,
            },
            Who::Root { root } => Principal::Root(root),
            Who::Service { service } => Principal::Service(service),
        }
    }
}

fn context(values: &BTreeMap<String, OneOrMore>) -> Context {
    let mut context = Context::default();
    for (key, value) in values {
        match value {
            OneOrMore::One(value) => context.set(key, value),
            OneOrMore::More(values) => values.iter().for_each(|value| context.add(key, value)),
        }
    }
    context
}

fn found(group: &Group, case: &Case) -> &'static str {
    let context = context(&case.context);
    let parse = |kind, document: &Value| {
        Policy::parse(kind, &document.to_string()).unwrap_or_else(|error| panic!("{}: {error}", case.name))
    };
    let of_principals = [
        (Kind::Trust, &group.trust, "sts:AssumeRole"),
        (Kind::Key, &group.key, "kms:Decrypt"),
    ];
    for (kind, document, usual) in of_principals {
        let Some(document) = document else { continue };
        let action = case.action.as_ref().or(group.action.as_ref());
        let resource = case.resource.as_ref().or(group.resource.as_ref());
        let request = Request {
            action: action.map_or(usual, String::as_str),
            resource: resource.map_or("*", String::as_str),
            context: &context,
        };
        let principal = case.principal.as_ref().expect("a principal").principal();
        return match trusts([&parse(kind, document)], &principal, &request) {
            Trust::Direct => "direct",
            Trust::ByAccount => "by account",
            Trust::Denied => "denied",
            Trust::NotAllowed => "not allowed",
        };
    }
    let all = |documents: &Vec<Value>| {
        let parsed = documents.iter().map(|document| parse(Kind::Identity, document));
        parsed.map(Arc::new).collect::<Vec<_>>()
    };
    let mut policies = all(&group.policies);
    if let Some(condition) = &group.condition {
        let document = json!({
            "Version": "2012-10-17",
            "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": condition},
        });
        policies.push(Arc::new(parse(Kind::Identity, &document)));
    }
    let text = |of_case: &Option<String>, of_group: &Option<String>, otherwise: &str| {
        of_case
            .clone()
            .or_else(|| of_group.clone())
            .unwrap_or_else(|| otherwise.to_owned())
    };
    let request = Request {
        action: &text(&case.action, &group.action, "ec2:RunInstances"),
        resource: &text(&case.resource, &group.resource, "*"),
        context: &context,
    };
    let limits = [
        (Layer::Boundary, &group.boundary),
        (Layer::Session, &group.session),
    ];
    let limits = limits
        .into_iter()
        .filter_map(|(layer, policies)| Some((layer, all(policies.as_ref()?))));
    let layers: Vec<_> = [(Layer::Identity, policies)].into_iter().chain(limits).collect();
    match decide_within(&layers, &request) {
        (Decision::Allowed, _) => "allowed",
        (Decision::Denied, Layer::Identity) => "denied",
        (Decision::Denied, Layer::Boundary) => "denied by the boundary",
        (Decision::Denied, Layer::Session) => "denied by the session",
        (Decision::NotAllowed, Layer::Identity) => "not allowed",
        (Decision::NotAllowed, Layer::Boundary) => "not allowed by the boundary",
        (Decision::NotAllowed, Layer::Session) => "not allowed by the session",
        (_, Layer::Resource) => "by the policy of something else",
    }
}

#[test]
fn policies_decide_what_the_documentation_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let (mut count, mut wrong) = (0, Vec::new());
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let groups: Vec<Group> = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        for group in &groups {
            assert!(group.page.starts_with("https://docs.aws.amazon.com/"));
            for case in &group.cases {
                count += 1;
                let found = found(group, case);
                if found != case.expect {
                    wrong.push(format!(
                        "{}: {}: {found} in place of {} ({})",
                        path.file_stem().unwrap().display(),
                        case.name,
                        case.expect,
                        group.page
                    ));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {count}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(count >= 200, "{count} cases");
}
