//! Who may use a key of KMS. Its policy says so; where that names an account alone, the account's own policies say the rest.
//! <https://docs.aws.amazon.com/kms/latest/developerguide/policy-evaluation.html>

use std::borrow::Cow;
use std::sync::Arc;

use hearth_api::ApiError;
use hearth_iam::{Decision, Kind, Layer, Policy, Request, Trust, decide_within, trusts};
use serde_json::json;

use super::identity::Layers;
use super::{Identity, parsed};
use crate::state::{KmsKey, State};

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
        "Principal": { "AWS": root(key) },
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
        "Principal": { "AWS": root(key) },
        "Action": ["kms:Describe*", "kms:Get*", "kms:List*", "kms:RevokeGrant"],
        "Resource": "*",
    });
    json!({ "Version": "2012-10-17", "Id": "auto-ebs-2", "Statement": [by_ebs, directly] }).to_string()
}

fn root(key: &KmsKey) -> String {
    format!("arn:aws:iam::{}:root", key.account_id)
}

/// The key with an ARN, whoever it belongs to.
pub(super) fn of_arn<'s>(state: &'s State, arn: &str) -> Option<&'s KmsKey> {
    let (_, id) = arn.strip_prefix("arn:aws:kms:")?.rsplit_once(":key/")?;
    state.of_anybody::<KmsKey>(id).filter(|key| key.arn() == arn)
}

/// What the policies of a key decide together with those of the caller. With the set that decided.
///
/// # Errors
/// The key's policy cannot be read.
pub(super) fn decide(
    key: &KmsKey,
    identity: &Identity<'_>,
    layers: &Layers,
    request: &Request<'_>,
) -> Result<(Decision, Layer), ApiError> {
    let policy: Arc<Policy> = parsed(Kind::Key, &policy_of(key)).map_err(|error| ApiError::internal(&error))?;
    let trust = identity.trusted(|principal| trusts([policy.as_ref()], principal, request));
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
        Trust::Direct if identity.account() != key.account_id => own(),
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
