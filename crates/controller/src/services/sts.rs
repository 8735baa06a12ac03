//! Who calls, and credentials that end.
//! <https://docs.aws.amazon.com/STS/latest/APIReference/API_Operations.html>

use hearth_api::v1::*;
use hearth_api::{ApiError, ErrorCode};
use hearth_ec2::Service;
use hearth_iam::{Context, Kind, Layer, Policy, Request, Trust, trusts};
use serde_json::json;

use super::iam::{invalid, is_name};
use super::serve;
use crate::app::App;
use crate::call::{Call, Caller};
use crate::iam::session::{self, Credentials as Made, SessionPolicies};
use crate::iam::{Denial, Identity, Of, Subject, denial, managed, open};
use crate::state::{AccessKey, Entity as _, Role, State};
use crate::views::timestamp;

/// Seconds that a session of a role has if nobody says.
const USUAL: i32 = 3600;
/// The shortest session.
const SHORTEST: i32 = 900;
/// Seconds that a session may have which comes out of another one.
const CHAINED: i32 = 3600;
const ASSUME: &str = "sts:AssumeRole";

serve! { sts_server::Sts as Sts {
    get_caller_identity(GetCallerIdentityRequest) -> GetCallerIdentityResponse: identity;
    assume_role(AssumeRoleRequest) -> AssumeRoleResponse: assume;
    get_federation_token(GetFederationTokenRequest) -> GetFederationTokenResponse: federate;
    get_session_token(GetSessionTokenRequest) -> GetSessionTokenResponse: session_token;
    get_access_key_info(GetAccessKeyInfoRequest) -> GetAccessKeyInfoResponse: key_info;
    decode_authorization_message(DecodeAuthorizationMessageRequest) -> DecodeAuthorizationMessageResponse: decode;
} }

async fn identity(app: &App, _: GetCallerIdentityRequest) -> Result<GetCallerIdentityResponse, ApiError> {
    let state = app.state();
    let identity = Identity::current(&state, &app.account())?;
    Ok(GetCallerIdentityResponse {
        user_id: identity.id(),
        account: app.account(),
        arn: identity.arn(),
    })
}

/// Seconds of a session.
fn duration(given: Option<i32>, usual: i32, most: i32) -> Result<i64, ApiError> {
    let seconds = given.unwrap_or_else(|| usual.min(most));
    if !(SHORTEST..=most).contains(&seconds) {
        let why = format!("Member must have value from {SHORTEST} to {most}");
        return Err(invalid("durationSeconds", &why));
    }
    Ok(seconds.into())
}

/// New credentials of an identity, with an audit row of whose they are.
async fn begin(app: &App, whose: &Identity<'_>, seconds: i64) -> Result<Made, ApiError> {
    let (principal, name, policies) = match whose {
        Identity::Session { role, name, policies } => {
            (role.id.clone(), Some(name.as_str()), policies.clone())
        }
        Identity::Federated {
            account_id,
            user,
            name,
            policies,
        } => {
            let of = user.map_or(account_id, |user| &user.id);
            (of.clone(), Some(name.as_str()), Some(policies.clone()))
        }
        other => (other.id(), None, None),
    };
    let expires_at = crate::store::now() + seconds * 1000;
    let made = session::begin(&app.vault, &principal, name, policies, expires_at);
    let made = made.map_err(|error| ApiError::internal(&error))?;
    let detail = json!({ "arn": whose.arn(), "access_key": made.access_key_id, "seconds": seconds });
    app.store
        .transact(move |tx| {
            tx.audit(detail);
            Ok::<_, ApiError>(())
        })
        .await?;
    Ok(made)
}

fn tell(made: Made) -> Credentials {
    Credentials {
        access_key_id: made.access_key_id,
        secret_access_key: made.secret.0,
        session_token: made.token,
        expiration: Some(timestamp(made.expires_at)),
    }
}

/// Bytes of all session policies that one call brings.
const MOST_POLICY: usize = 2048;

/// The session policies of a call; `None`: it has none. With how full they are, in per cent.
fn session_policies(
    state: &State,
    account_id: &str,
    inline: String,
    arns: Vec<PolicyDescriptorType>,
) -> Result<Option<(SessionPolicies, i32)>, ApiError> {
    let attached: Vec<String> = arns.into_iter().map(|descriptor| descriptor.arn).collect();
    let inline = Some(inline).filter(|inline| !inline.is_empty());
    let size = inline.iter().chain(&attached).map(String::len).sum::<usize>();
    if size > MOST_POLICY {
        let message = format!("The session policies and ARNs have {size} bytes; {MOST_POLICY} are admitted.");
        return Err(ApiError::new(ErrorCode::PackedPolicyTooLarge, message));
    }
    if let Some(inline) = &inline {
        Policy::parse(Kind::Identity, inline)
            .map_err(|error| ApiError::new(ErrorCode::MalformedPolicyDocument, error.to_string()))?;
    }
    for arn in &attached {
        if managed::of_arn(arn).is_none() && state.of_arn::<crate::state::Policy>(account_id, arn).is_none() {
            return Err(invalid(
                "policyArns",
                &format!("{arn} is no ARN of a managed policy of this account"),
            ));
        }
    }
    let is_any = inline.is_some() || !attached.is_empty();
    let full = i32::try_from((size * 100).div_ceil(MOST_POLICY)).unwrap_or(100);
    Ok(is_any.then_some((SessionPolicies { inline, attached }, full)))
}

async fn assume(app: &App, request: AssumeRoleRequest) -> Result<AssumeRoleResponse, ApiError> {
    let name = request.role_session_name;
    if !(2..=64).contains(&name.len()) || !is_name(&name) {
        let why = "Member must satisfy regular expression pattern: [\\w+=,.@-]{2,64}";
        return Err(invalid("roleSessionName", why));
    }
    let state = app.state();
    let identity = Identity::current(&state, &app.account())?;
    if matches!(identity, Identity::Root { .. }) {
        let message = "Roles may not be assumed by root accounts.";
        return Err(ApiError::new(ErrorCode::AccessDenied, message));
    }
    let denied = |is_explicit| {
        let denial = Denial {
            allowed: false,
            explicit_deny: is_explicit,
            layer: Layer::default(),
            principal: identity.arn(),
            action: ASSUME.to_owned(),
            resource: request.role_arn.clone(),
        };
        denial.error(&app.vault, Service::Sts)
    };
    // Nobody learns whether there is a role that trusts others. It may be another account's.
    let whole = app.store.state();
    let owner = request.role_arn.split(':').nth(4).unwrap_or_default();
    let role: &Role = whole
        .of_arn(owner, &request.role_arn)
        .ok_or_else(|| denied(false))?;
    let is_foreign = owner != app.account();
    let trust = Policy::parse(Kind::Trust, &role.trust).map_err(|error| ApiError::internal(&error))?;
    let mut context = Context::default();
    identity.tell(&mut context);
    context.set("sts:RoleSessionName", &name);
    if !request.external_id.is_empty() {
        context.set("sts:ExternalId", &request.external_id);
    }
    let resource = role.arn();
    let asked = Request {
        action: ASSUME,
        resource: &resource,
        context: &context,
    };
    match identity.trusted(|principal| trusts([&trust], principal, &asked)) {
        found @ (Trust::Direct | Trust::ByAccount) => {
            let subject = Subject {
                action: ASSUME.to_owned(),
                resource: role.arn(),
                context,
            };
            let call = Call::current().ok_or_else(|| denied(false))?;
            // Who is trusted by name needs no policy within an account; but one of its own may still deny it, and what limits
            // the session of a role that is trusted limits this, too.
            let limits = match (found, &identity) {
                (Trust::Direct, Identity::Session { .. }) => {
                    denial(&state, &call, &identity, subject.clone(), Of::Limits)?
                }
                _ => None,
            };
            let own = denial(&state, &call, &identity, subject, Of::All)?;
            let own = own.filter(|own| own.explicit_deny || is_foreign || found == Trust::ByAccount);
            if let Some(denial) = own.or(limits) {
                return Err(denial.error(&app.vault, Service::Sts));
            }
        }
        Trust::Denied => return Err(denied(true)),
        Trust::NotAllowed => return Err(denied(false)),
    }
    let most = match identity {
        Identity::Session { .. } => CHAINED,
        _ => role.max_session,
    };
    let seconds = duration(request.duration_seconds, USUAL, most)?;
    let limits = session_policies(&whole, owner, request.policy, request.policy_arns)?;
    let (policies, packed_policy_size) = limits.unzip();
    let assumed = Identity::Session { role, name, policies };
    let made = begin(app, &assumed, seconds).await?;
    Ok(AssumeRoleResponse {
        credentials: Some(tell(made)),
        assumed_role_user: Some(AssumedRoleUser {
            assumed_role_id: assumed.id(),
            arn: assumed.arn(),
        }),
        packed_policy_size,
    })
}

async fn federate(
    app: &App,
    request: GetFederationTokenRequest,
) -> Result<GetFederationTokenResponse, ApiError> {
    let name = request.name;
    if !(2..=32).contains(&name.len()) || !is_name(&name) {
        let why = "Member must satisfy regular expression pattern: [\\w+=,.@-]{2,32}";
        return Err(invalid("name", why));
    }
    let state = app.state();
    refuse_session("GetFederationToken")?;
    let user = match Identity::current(&state, &app.account())? {
        Identity::User(user) => Some(user),
        _ => None,
    };
    let seconds = duration(request.duration_seconds, 43_200, longest(user.is_none()))?;
    let limits = session_policies(&state, &app.account(), request.policy, request.policy_arns)?;
    let (policies, packed_policy_size) = limits.unzip();
    let federated = Identity::Federated {
        account_id: app.account(),
        user,
        name,
        // Without any, nothing is allowed.
        policies: policies.unwrap_or_default(),
    };
    let made = begin(app, &federated, seconds).await?;
    Ok(GetFederationTokenResponse {
        credentials: Some(tell(made)),
        federated_user: Some(FederatedUser {
            federated_user_id: federated.id(),
            arn: federated.arn(),
        }),
        packed_policy_size,
    })
}

/// # Errors
/// `AccessDenied`: the caller has credentials that end.
fn refuse_session(action: &str) -> Result<(), ApiError> {
    let is_session = Call::current().is_some_and(|call| matches!(call.principal.caller, Caller::Session(_)));
    match is_session {
        true => {
            let message = format!("Cannot call {action} with session credentials");
            Err(ApiError::new(ErrorCode::AccessDenied, message))
        }
        false => Ok(()),
    }
}

/// Seconds that credentials of a user, or of the root user, may live.
fn longest(is_root: bool) -> i32 {
    if is_root { 3600 } else { 129_600 }
}

async fn session_token(
    app: &App,
    request: GetSessionTokenRequest,
) -> Result<GetSessionTokenResponse, ApiError> {
    let state = app.state();
    refuse_session("GetSessionToken")?;
    let identity = Identity::current(&state, &app.account())?;
    let most = longest(matches!(identity, Identity::Root { .. }));
    let seconds = duration(request.duration_seconds, 43_200, most)?;
    Ok(GetSessionTokenResponse {
        credentials: Some(tell(begin(app, &identity, seconds).await?)),
    })
}

async fn key_info(app: &App, request: GetAccessKeyInfoRequest) -> Result<GetAccessKeyInfoResponse, ApiError> {
    let id = request.access_key_id;
    let key = app
        .store
        .state()
        .get::<AccessKey>(&id)
        .map(|key| key.account_id.clone());
    // Those of sessions are in no table.
    let account = key.or_else(|| id.starts_with("ASIA").then(|| app.account()));
    let unknown = || invalid("accessKeyId", &format!("{id} is no access key of this cloud"));
    Ok(GetAccessKeyInfoResponse {
        account: account.ok_or_else(unknown)?,
    })
}

async fn decode(
    app: &App,
    request: DecodeAuthorizationMessageRequest,
) -> Result<DecodeAuthorizationMessageResponse, ApiError> {
    let opened: Result<Denial, _> = open(&app.vault, &request.encoded_message);
    let account = app.account();
    let is_own = |denial: &Denial| denial.principal.split(':').nth(4) == Some(&account);
    let denial = opened.ok().filter(is_own).ok_or_else(|| {
        let message = "The message is none that this cloud has encoded for this account.";
        ApiError::new(ErrorCode::InvalidAuthorizationMessage, message)
    })?;
    let decoded_message = serde_json::to_string(&denial).map_err(|error| ApiError::internal(&error))?;
    Ok(DecodeAuthorizationMessageResponse { decoded_message })
}
