//! Whether a caller may do what it asks for.

use std::collections::HashMap;

use hearth_api::{ApiError, DESCRIPTORS, ErrorCode};
use hearth_ec2::Service;
use hearth_iam::{Context, Decision, Layer, Request, decide_within};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use serde::{Deserialize, Serialize};

use super::seal::{Sealed, seal};
use super::subjects::{self, Asked, Subject};
use super::{Identity, keys};
use crate::app::App;
use crate::call::Call;
use crate::keys::KeyError;
use crate::state::{KmsGrant, KmsKey, State};
use crate::vault::Vault;

/// Calls that policies are not asked for: nobody is refused, or their services ask themselves.
const FREE: &[&str] = &[
    "AssumeRole",
    "GetAccessKeyInfo",
    "GetCallerIdentity",
    "GetSessionToken",
    "RetireGrant",
];

/// The region of calls that are for none, to policies.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html#condition-keys-requestedregion>
const GLOBAL_REGION: &str = "us-east-1";

/// Services of Hearth's own. Policies call their actions `hearth:...`: who may do all that EC2 has admits no hosts by that.
const OWN: &[&str] = &[
    "Accounts",
    "CloudRegions",
    "Hosts",
    "ImageDisks",
    "Storage",
    "Watch",
];

/// Holds requests against policies.
#[derive(Debug)]
pub struct Authorizer {
    /// By path.
    requests: HashMap<String, Asking>,
}

/// What is known of a call's requests.
#[derive(Debug)]
struct Asking {
    service: Service,
    /// Of its actions in policies.
    prefix: &'static str,
    message: MessageDescriptor,
}

impl Authorizer {
    /// # Errors
    /// The API's descriptors cannot be read.
    pub fn new() -> Result<Self, ApiError> {
        let pool = DescriptorPool::decode(DESCRIPTORS).map_err(|error| ApiError::internal(&error))?;
        let mut requests = HashMap::new();
        for service in pool.services() {
            for method in service.methods() {
                let path = format!("/{}/{}", service.full_name(), method.name());
                let of = Service::of(service.name());
                let asking = Asking {
                    service: of,
                    prefix: if OWN.contains(&service.name()) {
                        "hearth"
                    } else {
                        of.name()
                    },
                    message: method.input(),
                };
                requests.insert(path, asking);
            }
        }
        Ok(Self { requests })
    }

    /// `message` is the request's bytes; none of a stream's.
    ///
    /// # Errors
    /// `UnauthorizedOperation`, or `AccessDenied` outside of EC2; what the message is no request with.
    pub fn check(&self, app: &App, call: &Call, path: &str, message: &[u8]) -> Result<(), ApiError> {
        let account = &call.principal.account_id;
        let scope = call.account_scope();
        let state = app.store.state().seen_by(scope.clone());
        let identity = Identity::of(&state, account, &call.principal.caller)?;
        if call.is_operators && *account != app.cloud.owner_id {
            return Err(ApiError::new(
                ErrorCode::UnauthorizedOperation,
                "Only the account of the cloud's operator may do this.",
            ));
        }
        let service = self.requests.get(path).map(|asking| asking.service);
        if let (Identity::Federated { .. }, Some(Service::Iam | Service::Sts)) = (&identity, service)
            && call.action != "GetCallerIdentity"
        {
            let message = format!(
                "A federated user cannot call {} with these credentials.",
                call.action
            );
            return Err(ApiError::new(ErrorCode::AccessDenied, message));
        }
        let asking = self.requests.get(path);
        // The root user may do everything that the policies of keys let it do.
        let is_root = matches!(identity, Identity::Root { .. });
        let names_keys = asking.is_some_and(|asking| subjects::may_name_keys(asking.prefix, &call.action));
        if (is_root && !names_keys) || FREE.contains(&call.action.as_str()) {
            return Ok(());
        }
        let asking = asking.ok_or_else(|| {
            ApiError::new(
                ErrorCode::UnauthorizedOperation,
                "Only the root user may do this.",
            )
        })?;
        let message = DynamicMessage::decode(asking.message.clone(), message).map_err(|_| {
            ApiError::new(
                ErrorCode::InvalidParameterValue,
                "The request is none of this call.",
            )
        })?;
        let asked = Asked {
            app,
            state: &state,
            identity: &identity,
            scope: &scope,
            service: asking.prefix,
            action: &call.action,
            message: &message,
        };
        for subject in subjects::of(&asked) {
            if let Some(denial) = denial(&state, call, &identity, subject, Of::All)? {
                return Err(denial.error(&app.vault, asking.service));
            }
        }
        Ok(())
    }
}

/// Which of an identity's policies are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    All,
    /// Those that limit what others give. Without any, nothing is denied.
    Limits,
}

/// Why an identity's policies, and that of the key that the subject is, do not allow it; `None`: they do.
///
/// # Errors
/// A policy cannot be read.
pub fn denial(
    state: &State,
    call: &Call,
    identity: &Identity<'_>,
    subject: Subject,
    of: Of,
) -> Result<Option<Denial>, ApiError> {
    let key = keys::of_arn(state, &subject.resource);
    let policies = key.map(|key| (keys::documents(state, key, &subject), key.account_id.as_str()));
    denied(state, call, identity, subject, of, policies)
}

/// Why what a key's policy says now, or would say, does not let an identity do something with it.
///
/// # Errors
/// As [`denial`].
pub fn denial_by_key(
    state: &State,
    call: &Call,
    identity: &Identity<'_>,
    action: &str,
    key: &KmsKey,
) -> Result<Option<Denial>, ApiError> {
    let subject = Subject {
        action: action.to_owned(),
        resource: key.arn(),
        context: Context::default(),
    };
    let policies = Some((keys::documents(state, key, &subject), key.account_id.as_str()));
    denied(state, call, identity, subject, Of::All, policies)
}

/// Why an identity may not retire a grant.
///
/// # Errors
/// As [`denial`].
pub fn denial_to_retire(
    state: &State,
    call: &Call,
    identity: &Identity<'_>,
    grant: &KmsGrant,
) -> Result<Option<Denial>, ApiError> {
    let key = state.of_anybody::<KmsKey>(&grant.key_id);
    let subject = Subject {
        action: "kms:RetireGrant".to_owned(),
        resource: key.map_or_else(String::new, KmsKey::arn),
        context: Context::default(),
    };
    let policies = Some((vec![keys::of_retiring(grant)], grant.account_id.as_str()));
    denied(state, call, identity, subject, Of::All, policies)
}

/// `policies`: of the key that the subject is, and the key's account.
fn denied(
    state: &State,
    call: &Call,
    identity: &Identity<'_>,
    subject: Subject,
    of: Of,
    policies: Option<(Vec<String>, &str)>,
) -> Result<Option<Denial>, ApiError> {
    if policies.is_none() && matches!(identity, Identity::Root { .. }) {
        return Ok(None);
    }
    let mut layers = identity.policies(state)?;
    if of == Of::Limits {
        layers.retain(|(layer, _)| *layer != Layer::Identity);
        if layers.is_empty() {
            return Ok(None);
        }
    }
    let mut context = subject.context;
    tell(call, &mut context);
    identity.tell(&mut context);
    let request = Request {
        action: &subject.action,
        resource: &subject.resource,
        context: &context,
    };
    let (decision, layer) = match policies {
        Some((documents, account)) => keys::decide(&documents, account, identity, &layers, &request)?,
        None => decide_within(&layers, &request),
    };
    let denial = |explicit_deny| Denial {
        allowed: false,
        explicit_deny,
        layer,
        principal: identity.arn(),
        action: subject.action.clone(),
        resource: subject.resource.clone(),
    };
    Ok(match decision {
        Decision::Allowed => None,
        Decision::Denied => Some(denial(true)),
        Decision::NotAllowed => Some(denial(false)),
    })
}

/// The condition keys that say when and how a call came.
fn tell(call: &Call, context: &mut Context) {
    let now = crate::store::now();
    context.set("aws:CurrentTime", crate::views::time(now));
    context.set("aws:EpochTime", (now / 1000).to_string());
    context.set("aws:PrincipalAccount", &call.principal.account_id);
    context.set("kms:CallerAccount", &call.principal.account_id);
    let region = match call.region.as_str() {
        "" => GLOBAL_REGION,
        region => region,
    };
    context.set("aws:RequestedRegion", region);
    context.set("ec2:Region", region);
    let is_secure = call.origin.is_some_and(|origin| origin.is_secure);
    context.set("aws:SecureTransport", is_secure.to_string());
    if let Some(origin) = call.origin {
        context.set("aws:SourceIp", origin.address.to_string());
    }
}

fn account_of(arn: &str) -> Option<&str> {
    arn.split(':').nth(4)
}

/// Why a caller was refused: in the refusal's sentence, and sealed for who may decode it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Denial {
    pub allowed: bool,
    pub explicit_deny: bool,
    /// The policies that did not allow it.
    #[serde(skip)]
    pub layer: Layer,
    pub principal: String,
    pub action: String,
    pub resource: String,
}

impl Sealed for Denial {
    const KIND: &'static str = "denial";
}

impl Denial {
    /// The error of a call of a service.
    /// <https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html>
    pub fn error(&self, vault: &Vault, service: Service) -> ApiError {
        let Denial {
            principal,
            action,
            resource,
            ..
        } = self;
        let policy = match self.layer {
            Layer::Identity => "identity-based policy",
            Layer::Boundary => "permissions boundary",
            Layer::Session => "session policy",
            Layer::Resource => "resource-based policy",
        };
        let because = if self.explicit_deny {
            let article = if self.layer == Layer::Identity { "an" } else { "a" };
            format!("with an explicit deny in {article} {policy}")
        } else {
            format!("because no {policy} allows the {action} action")
        };
        let said = format!(
            "User: {principal} is not authorized to perform: {action} on resource: {resource} {because}"
        );
        if service != Service::Ec2 {
            return ApiError::new(ErrorCode::AccessDenied, said);
        }
        // EC2 knows no key that is another account's and not shared.
        if self.layer == Layer::Resource && account_of(principal) != account_of(resource) {
            return KeyError::Gone(resource.clone()).into();
        }
        let encoded = match seal(vault, self) {
            Ok(encoded) => format!(" Encoded authorization failure message: {encoded}"),
            Err(_) => String::new(),
        };
        ApiError::new(
            ErrorCode::UnauthorizedOperation,
            format!("You are not authorized to perform this operation. {said}.{encoded}"),
        )
    }
}
