//! Who calls, and credentials that end.
//! <https://docs.aws.amazon.com/STS/latest/APIReference/API_Operations.html>

use hearth_api::v1::*;
use hearth_api::{ApiError, ErrorCode};
use hearth_ec2::Service;
use hearth_iam::{Context, Kind, Policy, Trust, trusts};
use serde_json::json;

use super::iam::{invalid, is_name};
use super::serve;
use crate::app::App;
use crate::call::{Call, Caller};
use crate::iam::session::{self, Credentials as Made};
use crate::iam::{Denial, Identity, Subject, denial, open};
use crate::state::{AccessKey, Entity as _, Role};
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
    let (principal, name) = match whose {
        Identity::Session { role, name } => (role.id.clone(), Some(name.as_str())),
        other => (other.id(), None),
    };
    let expires_at = crate::store::now() + seconds * 1000;
    let made = session::begin(&app.vault, &principal, name, expires_at);
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
    match identity.trusted(|principal| trusts(&trust, principal, ASSUME, &context)) {
        found @ (Trust::Direct | Trust::ByAccount) => {
            let subject = Subject {
                action: ASSUME.to_owned(),
                resource: role.arn(),
                context,
            };
            let call = Call::current().ok_or_else(|| denied(false))?;
            // Who is trusted by name needs no policy within an account; but one of its own may still deny it.
            match denial(app, &state, &call, &identity, subject)? {
                Some(own) if own.explicit_deny || is_foreign || found == Trust::ByAccount => {
                    return Err(own.error(&app.vault, Service::Sts));
                }
                _ => {}
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
    let assumed = Identity::Session { role, name };
    let made = begin(app, &assumed, seconds).await?;
    Ok(AssumeRoleResponse {
        credentials: Some(tell(made)),
        assumed_role_user: Some(AssumedRoleUser {
            assumed_role_id: assumed.id(),
            arn: assumed.arn(),
        }),
    })
}

async fn session_token(
    app: &App,
    request: GetSessionTokenRequest,
) -> Result<GetSessionTokenResponse, ApiError> {
    let state = app.state();
    let is_session = Call::current().is_some_and(|call| matches!(call.principal.caller, Caller::Session(_)));
    if is_session {
        return Err(ApiError::new(
            ErrorCode::AccessDenied,
            "Cannot call GetSessionToken with session credentials",
        ));
    }
    let identity = Identity::current(&state, &app.account())?;
    let most = match identity {
        Identity::Root { .. } => 3600,
        _ => 129_600,
    };
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
