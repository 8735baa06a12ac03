//! KMS keys: those that a request is about, and those under which it encrypts.

use std::collections::BTreeSet;

use hearth_iam::Context;

use super::{Asked, Subject, tell_tags};
use crate::iam::members::{tags_of_key, texts_of};
use crate::state::KmsAlias;

/// Calls of EC2 that may make data keys.
const ENCRYPTS: &[&str] = &[
    "RunInstances",
    "CreateVolume",
    "CopySnapshot",
    "CopyImage",
    "ModifyEbsDefaultKmsKeyId",
];

impl Asked<'_> {
    /// `kms:GenerateDataKeyWithoutPlaintext` for the KMS keys of what a request encrypts: those that it names, and the one that the
    /// account has chosen for what names none. Whoever may use EC2 may use the key that the cloud makes.
    pub(super) fn data_keys(&self) -> Vec<Subject> {
        if !ENCRYPTS.contains(&self.action) {
            return Vec::new();
        }
        let mut texts = Vec::new();
        texts_of(self.message, &mut texts);
        let mut named: BTreeSet<String> = texts
            .into_iter()
            .filter(|(field, _)| field == "kms_key_id")
            .map(|(_, value)| value)
            .collect();
        if self.may_take_default() {
            named.extend(self.state.account_settings(self.scope).ebs_key);
        }
        let subject = |given: String| {
            let mut context = Context::default();
            let resource = self.key_arn(&given, &mut context)?;
            Some(Subject {
                action: "kms:GenerateDataKeyWithoutPlaintext".to_owned(),
                resource,
                context,
            })
        };
        named.into_iter().filter_map(subject).collect()
    }

    /// Whether a request may encrypt under the key that the account has chosen. What is copied may be encrypted already.
    fn may_take_default(&self) -> bool {
        let encrypts = |volume: &Context| volume.get("ec2:Encrypted").is_some_and(|told| told == ["true"]);
        match self.action {
            "ModifyEbsDefaultKmsKeyId" => false,
            "RunInstances" | "CreateVolume" => self.new_volumes().iter().any(encrypts),
            _ => true,
        }
    }

    /// The ARN of a key that is not the cloud's. One that is not there is as it is named.
    fn key_arn(&self, given: &str, context: &mut Context) -> Option<String> {
        let Some(key) = self.state.kms_key(self.scope, given) else {
            let (region, account) = (self.scope.region(), self.account());
            return Some(match given {
                KmsAlias::EBS => return None,
                arn if arn.starts_with("arn:") => arn.to_owned(),
                id => format!("arn:aws:kms:{region}:{account}:key/{id}"),
            });
        };
        for (name, value) in &key.tags {
            context.set(&format!("aws:ResourceTag/{name}"), value);
        }
        for alias in self.state.by(&KmsAlias::BY_KEY, &key.id) {
            context.add("kms:ResourceAliases", &alias.name);
        }
        (!key.is_managed || self.service == "kms").then(|| key.arn())
    }

    /// The key that a request is about, and the name that it makes or deletes.
    /// <https://docs.aws.amazon.com/kms/latest/developerguide/kms-api-permissions-reference.html>
    pub(super) fn of_kms(&self) -> Vec<Subject> {
        let mut subjects = Vec::new();
        let alias = self.text("alias_name");
        let tags = tags_of_key(self.message);
        let tags: Vec<_> = tags.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let target = self.text("target_key_id").or_else(|| match &alias {
            // Whoever deletes a name needs the right to its key, too.
            Some(name) => Some(self.state.kms_alias(self.scope, name)?.key_id.clone()),
            None => self.text("key_id"),
        });
        if let Some(given) = target {
            let mut context = Context::default();
            tell_tags("aws:RequestTag", &tags, &mut context);
            if let Some(arn) = self.key_arn(&given, &mut context) {
                subjects.push(self.subject(arn, context));
            }
        }
        if let Some(name) = alias {
            let (region, account) = (self.scope.region(), self.account());
            let arn = format!("arn:aws:kms:{region}:{account}:{name}");
            subjects.push(self.subject(arn, Context::default()));
        }
        if subjects.is_empty() {
            let mut context = Context::default();
            tell_tags("aws:RequestTag", &tags, &mut context);
            subjects.push(self.subject("*".to_owned(), context));
        }
        subjects
    }
}
