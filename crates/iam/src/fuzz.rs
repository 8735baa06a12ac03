//! Fuzz targets: hostile policy documents. `scripts/fuzz` runs them; the tests here, on the corpus only.

use crate::{Context, Decision, Kind, Policy, Principal, Request, Trust, decide, trusts};

/// A name, and what is done with an input.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: &[Target] = &[("policy", policy)];

const ACCOUNT: &str = "arn:aws:iam::123456789012:root";

/// A document of any kind, and what it decides about one request.
fn policy(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let context = context();
    if let Ok(policy) = Policy::parse(Kind::Identity, &text) {
        let resource = "arn:aws:ec2:us-east-1:123456789012:instance/i-0123456789abcdef0";
        let request = |resource| Request {
            action: "ec2:TerminateInstances",
            resource,
            context: &context,
        };
        for resource in [resource, "*"] {
            let alone = decide([&policy], &request(resource));
            assert_eq!(alone, decide([&policy, &policy], &request(resource)));
            let root = Principal::Root(ACCOUNT);
            assert_eq!(trusts([&policy], &root, &request(resource)), Trust::NotAllowed);
        }
    }
    for (kind, action) in [(Kind::Trust, "sts:AssumeRole"), (Kind::Key, "kms:Decrypt")] {
        let Ok(policy) = Policy::parse(kind, &text) else {
            continue;
        };
        let principals = [
            Principal::User("arn:aws:iam::123456789012:user/ada"),
            Principal::AssumedRole {
                role_arn: "arn:aws:iam::123456789012:role/builder",
                session_arn: "arn:aws:sts::123456789012:assumed-role/builder/ada",
            },
            Principal::Root(ACCOUNT),
            Principal::Service("ec2.amazonaws.com"),
        ];
        let request = Request {
            action,
            resource: "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab",
            context: &context,
        };
        for principal in principals {
            let alone = trusts([&policy], &principal, &request);
            assert_eq!(alone, trusts([&policy, &policy], &principal, &request));
        }
        assert_eq!(decide([&policy], &request), Decision::NotAllowed);
    }
}

/// Keys of all types.
fn context() -> Context {
    let mut context = Context::default();
    for (key, value) in [
        ("aws:username", "ada"),
        ("aws:SourceIp", "203.0.113.7"),
        ("aws:CurrentTime", "2026-11-27T12:00:00Z"),
        ("aws:EpochTime", "1795780800"),
        ("aws:SecureTransport", "true"),
        ("aws:MultiFactorAuthAge", "60"),
        ("aws:PrincipalArn", "arn:aws:iam::123456789012:user/ada"),
        ("aws:PrincipalTag/team", "*?${aws:username}"),
        ("ec2:Key", "QmluYXJ5"),
        ("aws:TagKeys", "team"),
        ("aws:TagKeys", "cost-center"),
    ] {
        context.add(key, value);
    }
    context
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn the_corpus_passes() {
        for (name, target) in super::TARGETS {
            let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../../fuzz/corpus")
                .join(name);
            for file in std::fs::read_dir(corpus).unwrap() {
                target(&std::fs::read(file.unwrap().path()).unwrap());
            }
        }
    }
}
