//! KMS keys: those that a request is about, those under which it encrypts, and those of what it reads.

use std::collections::BTreeSet;

use hearth_api::Kind;
use hearth_iam::Context;

use super::{Asked, Subject, tell_tags};
use crate::iam::members::{bytes, entries, tags_of_key, texts_of};
use crate::keys::ciphertext::Ciphertext;
use crate::state::{Encryption, Image, KmsAlias, KmsKey, Noun as _, Snapshot, Volume};

/// Calls of EC2, and of Hearth for it, that may make data keys.
const ENCRYPTS: &[&str] = &[
    "RunInstances",
    "CreateVolume",
    "CopySnapshot",
    "CopyImage",
    "ModifyEbsDefaultKmsKeyId",
    "UploadImage",
];
/// Calls of EC2 that read what snapshots and images hold.
const READS: &[&str] = &[
    "RunInstances",
    "CreateVolume",
    "CopySnapshot",
    "CopyImage",
    "RegisterImage",
];
/// Calls of EC2 that open volumes.
const OPENS: &[&str] = &["AttachVolume", "StartInstances"];

/// Whether a call may be about keys of KMS, whose policies everybody is asked for.
pub(in crate::iam) fn may_name_keys(service: &str, action: &str) -> bool {
    match service {
        "kms" => true,
        "ec2" | "hearth" => [ENCRYPTS, READS, OPENS].concat().contains(&action),
        _ => false,
    }
}

impl Asked<'_> {
    /// What a call of EC2 does with keys: `kms:GenerateDataKeyWithoutPlaintext` under those that it names, and under the one that
    /// the account has chosen for what names none; `kms:Decrypt` of what it reads; `kms:CreateGrant` for the volumes that it
    /// opens.
    /// <https://docs.aws.amazon.com/ebs/latest/userguide/how-ebs-encryption-works.html>
    pub(super) fn data_keys(&self) -> Vec<Subject> {
        let mut subjects = Vec::new();
        if ENCRYPTS.contains(&self.action) {
            subjects.extend(self.under().into_iter().filter_map(|given| {
                let mut context = self.via_ec2();
                let arn = self.key_arn(&given, &mut context)?;
                Some(of_key("GenerateDataKeyWithoutPlaintext", arn, context))
            }));
        }
        let (action, used) = match self.action {
            reads if READS.contains(&reads) => ("Decrypt", self.read()),
            opens if OPENS.contains(&opens) => ("CreateGrant", self.opened()),
            _ => return subjects,
        };
        let ids: BTreeSet<&str> = used.iter().map(|encryption| encryption.key_id.as_str()).collect();
        subjects.extend(ids.into_iter().filter_map(|id| {
            let key = self.state.of_anybody::<KmsKey>(id)?;
            let mut context = self.via_ec2();
            context.set("kms:GrantIsForAWSResource", "true");
            self.tell_key(key, &mut context);
            Some(of_key(action, key.arn(), context))
        }));
        subjects
    }

    fn via_ec2(&self) -> Context {
        let mut context = Context::default();
        let service = format!("ec2.{}.amazonaws.com", self.scope.region());
        context.set("kms:ViaService", service);
        context
    }

    /// Keys that a request names, or means, for what it makes.
    fn under(&self) -> BTreeSet<String> {
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
        named
    }

    /// Whether a request may encrypt under the key that the account has chosen. What is copied may be encrypted already.
    fn may_take_default(&self) -> bool {
        let encrypts = |volume: &Context| volume.get("ec2:Encrypted").is_some_and(|told| told == ["true"]);
        match self.action {
            "ModifyEbsDefaultKmsKeyId" => false,
            "UploadImage" => self.state.account_settings(self.scope).ebs_encryption,
            "RunInstances" | "CreateVolume" => self.new_volumes().iter().any(encrypts),
            _ => true,
        }
    }

    /// Of the snapshots and images that a request names and that the account may use, in whichever region.
    fn read(&self) -> Vec<&Encryption> {
        let mut used = Vec::new();
        let snapshot = |id: &str| self.state.of_anybody::<Snapshot>(id);
        for (kind, id) in self.named() {
            match kind {
                Kind::Snapshot => {
                    let found = snapshot(&id).filter(|found| found.is_usable_by(self.account()));
                    used.extend(found.and_then(|found| found.encryption.as_ref()));
                }
                Kind::Image => {
                    let found = self.state.of_anybody::<Image>(&id);
                    let Some(image) = found.filter(|found| found.is_usable_by(self.account())) else {
                        continue;
                    };
                    used.extend(&image.encryption);
                    // What is the image's to give.
                    let devices = image.devices.iter();
                    let snapshots = devices.filter_map(|device| snapshot(device.snapshot_id.as_ref()?));
                    used.extend(snapshots.filter_map(|found| found.encryption.as_ref()));
                }
                _ => {}
            }
        }
        used
    }

    /// Of the volumes that a request names, and of those of its instances.
    fn opened(&self) -> Vec<&Encryption> {
        let mut used = Vec::new();
        let is_start = self.action == "StartInstances";
        for (kind, id) in self.named() {
            match kind {
                Kind::Volume => used.extend(self.state.get::<Volume>(&id)),
                Kind::Instance if is_start => used.extend(self.state.by(&Volume::BY_INSTANCE, &id)),
                _ => {}
            }
        }
        used.into_iter()
            .filter_map(|volume| volume.encryption.as_ref())
            .collect()
    }

    /// The ARN of a key, which policies are told of. One that is not there is as it is named; `None`: the cloud makes it.
    fn key_arn(&self, given: &str, context: &mut Context) -> Option<String> {
        if given.starts_with(KmsAlias::PREFIX) {
            context.set("kms:RequestAlias", given);
        }
        let Some(key) = self.state.kms_key(self.scope, given) else {
            let (region, account) = (self.scope.region(), self.account());
            return match given {
                KmsAlias::EBS => None,
                arn if arn.starts_with("arn:") => Some(arn.to_owned()),
                id => Some(format!("arn:aws:kms:{region}:{account}:key/{id}")),
            };
        };
        self.tell_key(key, context);
        Some(key.arn())
    }

    fn tell_key(&self, key: &KmsKey, context: &mut Context) {
        for (name, value) in &key.tags {
            context.set(&format!("aws:ResourceTag/{name}"), value);
        }
        for alias in self.state.by(&KmsAlias::BY_KEY, &key.id) {
            context.add("kms:ResourceAliases", &alias.name);
        }
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
        let mut about = |action: &str, given: Option<String>, pairs: &str| {
            let mut context = Context::default();
            tell_tags("aws:RequestTag", &tags, &mut context);
            self.tell_pairs(pairs, &mut context);
            if let Some(arn) = given.and_then(|given| self.key_arn(&given, &mut context)) {
                subjects.push(of_key(action, arn, context));
            }
        };
        match self.action {
            "ReEncrypt" => {
                about("ReEncryptFrom", self.encrypted_by(), "source_encryption_context");
                let to = self.text("destination_key_id");
                about("ReEncryptTo", to, "destination_encryption_context");
            }
            "Decrypt" => about("Decrypt", self.encrypted_by().or(target), "encryption_context"),
            action => about(action, target, "encryption_context"),
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

    /// The ARN of the key that has encrypted what a request brings.
    fn encrypted_by(&self) -> Option<String> {
        let blob = bytes(self.message, "ciphertext_blob")?;
        let key = self
            .state
            .of_anybody::<KmsKey>(&Ciphertext::read(&blob)?.key_id)?;
        Some(key.arn())
    }

    /// <https://docs.aws.amazon.com/kms/latest/developerguide/conditions-kms.html#conditions-kms-encryption-context>
    fn tell_pairs(&self, field: &str, context: &mut Context) {
        for (name, value) in entries(self.message, field) {
            context.set(&format!("kms:EncryptionContext:{name}"), value);
            context.add("kms:EncryptionContextKeys", name);
        }
    }
}

fn of_key(action: &str, resource: String, context: Context) -> Subject {
    Subject {
        action: format!("kms:{action}"),
        resource,
        context,
    }
}
