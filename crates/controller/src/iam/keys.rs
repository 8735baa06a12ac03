//! Who may use a key of KMS. Its policy says so; where that names an account alone, the account's own policies say the rest.
//! <https://docs.aws.amazon.com/kms/latest/developerguide/policy-evaluation.html>

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use hearth_api::ApiError;
use hearth_iam::{Decision, Kind, Layer, Malformed, Policy, Request, Trust, decide_within, trusts};
use serde_json::{Value, json};

use super::identity::Layers;
use super::{Identity, Subject, parsed};
use crate::state::{KmsGrant, KmsKey, State};

/// The policy of a key.
pub fn policy_of(key: &KmsKey) -> Cow<'_, str> {
    match &key.policy {
        Some(policy) => Cow::Borrowed(policy),
        None if key.is_managed => Cow::Owned(of_ebs(key)),
        None => Cow::Owned(usual(key)),
    }
}

/// Of keys that are made without a policy.
/// <https://docs.aws.amazon.com/kms/latest/developerguide/key-policy-default.html>
fn usual(key: &KmsKey) -> String {
    let statement = json!({
        "Sid": "Enable IAM User Permissions",
        "Effect": "Allow",
        "Principal": { "AWS": root(&key.account_id) },
        "Action": "kms:*",
        "Resource": "*",
    });
    json!({ "Version": "2012-10-17", "Id": "key-default-1", "Statement": [statement] }).to_string()
}

/// Of the key that the cloud makes for an account's volumes: whoever may use EC2 may use it there.
/// <https://docs.aws.amazon.com/kms/latest/developerguide/concepts.html#aws-managed-cmk>
fn of_ebs(key: &KmsKey) -> String {
    let by_ebs = json!({
        "Sid": "Allow access through EBS for all principals in the account that are authorized to use EBS",
        "Effect": "Allow",
        "Principal": { "AWS": "*" },
        "Action": [
            "kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:CreateGrant", "kms:DescribeKey",
        ],
        "Resource": "*",
        "Condition": { "StringEquals": {
            "kms:CallerAccount": key.account_id,
            "kms:ViaService": format!("ec2.{}.amazonaws.com", key.region),
        } },
    });
    let directly = json!({
        "Sid": "Allow direct access to key metadata to the account",
        "Effect": "Allow",
        "Principal": { "AWS": root(&key.account_id) },
        "Action": ["kms:Describe*", "kms:Get*", "kms:List*", "kms:RevokeGrant"],
        "Resource": "*",
    });
    json!({ "Version": "2012-10-17", "Id": "auto-ebs-2", "Statement": [by_ebs, directly] }).to_string()
}

fn root(account_id: &str) -> String {
    format!("arn:aws:iam::{account_id}:root")
}

/// Operations that have an encryption context: what a grant says of it holds for them.
const WITH_CONTEXT: &[&str] = &[
    "Decrypt",
    "Encrypt",
    "GenerateDataKey",
    "GenerateDataKeyWithoutPlaintext",
    "ReEncryptFrom",
    "ReEncryptTo",
];

/// A grant as the policy that it is.
fn of_grant(grant: &KmsGrant) -> String {
    let allows = |with_context: bool, condition: Option<Value>| {
        let of = |name: &&String| WITH_CONTEXT.contains(&name.as_str()) == with_context;
        let actions: Vec<String> = grant
            .operations
            .iter()
            .filter(of)
            .map(|name| format!("kms:{name}"))
            .collect();
        let mut statement = json!({
            "Effect": "Allow",
            "Principal": { "AWS": grant.grantee },
            "Action": actions,
            "Resource": "*",
        });
        if let Some(condition) = condition {
            statement["Condition"] = condition;
        }
        (!actions.is_empty()).then_some(statement)
    };
    let constraints = &grant.constraints;
    let pairs = constraints.subset.iter().chain(&constraints.equals);
    let pairs: BTreeMap<String, &String> = pairs
        .map(|(name, value)| (format!("kms:EncryptionContext:{name}"), value))
        .collect();
    let names: Vec<&String> = constraints.equals.keys().collect();
    let mut condition = json!({ "StringEquals": pairs });
    if !names.is_empty() {
        condition["ForAllValues:StringEquals"] = json!({ "kms:EncryptionContextKeys": names });
    }
    let condition = Some(condition).filter(|_| !pairs.is_empty());
    let statements = [allows(true, condition), allows(false, None)];
    let statements: Vec<Value> = statements.into_iter().flatten().collect();
    json!({ "Version": "2008-10-17", "Statement": statements }).to_string()
}

/// Who may retire a grant, as a policy.
pub(super) fn of_retiring(grant: &KmsGrant) -> String {
    let mut whom = vec![root(&grant.account_id)];
    whom.extend(Some(grant.retiring.clone()).filter(|retiring| !retiring.is_empty()));
    if grant.operations.iter().any(|name| name == "RetireGrant") {
        whom.push(grant.grantee.clone());
    }
    let statement = json!({ "Effect": "Allow", "Principal": { "AWS": whom }, "Action": "kms:RetireGrant", "Resource": "*" });
    json!({ "Version": "2008-10-17", "Statement": [statement] }).to_string()
}

/// # Errors
/// A grant names whom no policy can name.
pub fn check_grant(grant: &KmsGrant) -> Result<(), Malformed> {
    for document in [of_grant(grant), of_retiring(grant)] {
        Policy::parse(Kind::Key, &document)?;
    }
    Ok(())
}

/// What is asked for a subject that is a key: its policy, and its grants of what is asked for. A grantee makes no grants itself.
pub(super) fn documents(state: &State, key: &KmsKey, subject: &Subject) -> Vec<String> {
    let operation = subject.action.strip_prefix("kms:").unwrap_or_default();
    let is_for_aws = subject.context.get("kms:GrantIsForAWSResource").is_some();
    let grants = state
        .grants_of(&key.id)
        .filter(|_| operation != "CreateGrant" || is_for_aws)
        .filter(|grant| grant.operations.iter().any(|name| name == operation));
    let mut documents = vec![policy_of(key).into_owned()];
    documents.extend(grants.map(of_grant));
    documents
}

/// The key with an ARN, whoever it belongs to.
pub(super) fn of_arn<'s>(state: &'s State, arn: &str) -> Option<&'s KmsKey> {
    let (_, id) = arn.strip_prefix("arn:aws:kms:")?.rsplit_once(":key/")?;
    state.of_anybody::<KmsKey>(id).filter(|key| key.arn() == arn)
}

/// What policies of an account's key decide together with those of the caller. With the set that decided.
///
/// # Errors
/// A policy of the key cannot be read.
pub(super) fn decide(
    documents: &[String],
    account_id: &str,
    identity: &Identity<'_>,
    layers: &Layers,
    request: &Request<'_>,
) -> Result<(Decision, Layer), ApiError> {
    let policies = documents.iter().map(|document| parsed(Kind::Key, document));
    let policies: Result<Vec<Arc<Policy>>, Malformed> = policies.collect();
    let policies = policies.map_err(|error| ApiError::internal(&error))?;
    let trust = identity.trusted(|principal| trusts(policies.iter().map(AsRef::as_ref), principal, request));
    let allowed = (Decision::Allowed, Layer::Identity);
    let own = || match identity {
        // Its own account lets it do everything.
        Identity::Root { .. } => allowed,
        _ => decide_within(layers, request),
    };
    Ok(match trust {
        Trust::Denied => (Decision::Denied, Layer::Resource),
        Trust::NotAllowed => (Decision::NotAllowed, Layer::Resource),
        // Whom another account names needs the right from its own, too.
        Trust::ByAccount => own(),
        Trust::Direct if identity.account() != account_id => own(),
        // Its own policies need not allow it; but they may deny it, and what limits them limits this, too.
        Trust::Direct => match own() {
            denied @ (Decision::Denied, _) => denied,
            _ => {
                let limits: Layers = layers
                    .iter()
                    .filter(|(layer, _)| *layer != Layer::Identity)
                    .cloned()
                    .collect();
                match limits.is_empty() {
                    true => allowed,
                    false => decide_within(&limits, request),
                }
            }
        },
    })
}
