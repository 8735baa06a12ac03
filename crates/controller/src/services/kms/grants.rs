//! Grants: rights to a key for somebody, which whoever manages the key, or whom they name for it, takes back. A grantee makes no
//! grants itself: `CreateGrant` among its operations lets it attach volumes.
//! <https://docs.aws.amazon.com/kms/latest/developerguide/grants.html>

use std::collections::BTreeSet;

use hearth_api::v1::*;
use hearth_api::{ApiError, ErrorCode};
use hearth_ec2::Service;
use serde_json::json;

use super::{by_id, found, not_found, page, refuse_unusable};
use crate::app::App;
use crate::call::Call;
use crate::iam::{self, Identity};
use crate::state::{Constraints, KmsGrant, KmsKey, Scope, State, key};
use crate::views::timestamp;

/// What grants of symmetric keys let somebody do.
const OPERATIONS: &[&str] = &[
    "CreateGrant",
    "Decrypt",
    "DescribeKey",
    "Encrypt",
    "GenerateDataKey",
    "GenerateDataKeyWithoutPlaintext",
    "ReEncryptFrom",
    "ReEncryptTo",
    "RetireGrant",
];
/// Grants of a page: as many as nothing says, and the most.
const PAGE: (i32, i32) = (50, 100);

fn wrong(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::ValidationException, message)
}

/// The grant that a request asks for.
///
/// # Errors
/// `ValidationException`, `InvalidArnException`.
fn asked(app: &App, request: &CreateGrantRequest, of: &KmsKey) -> Result<KmsGrant, ApiError> {
    if request.grantee_principal.is_empty() {
        return Err(ApiError::missing("GranteePrincipal"));
    }
    let operations: BTreeSet<&str> = request.operations.iter().map(String::as_str).collect();
    if let Some(other) = operations.iter().find(|name| !OPERATIONS.contains(name)) {
        let known = OPERATIONS.join(", ");
        return Err(wrong(format!(
            "{other:.100} is no operation of a grant for this key. Expecting {known}."
        )));
    }
    if operations.is_empty() {
        return Err(ApiError::missing("Operations"));
    }
    let admitted = |b: u8| b.is_ascii_alphanumeric() || b":/_-".contains(&b);
    if !request.name.bytes().all(admitted) {
        return Err(wrong(
            "The name of a grant has letters, digits and the characters :/_- alone.",
        ));
    }
    let constraints = request.constraints.clone().unwrap_or_default();
    let grant = KmsGrant {
        id: hex::encode(rand::random::<[u8; 32]>()),
        account_id: of.account_id.clone(),
        region: of.region.clone(),
        key_id: of.id.clone(),
        name: request.name.clone(),
        grantee: request.grantee_principal.clone(),
        retiring: request.retiring_principal.clone(),
        operations: operations.into_iter().map(str::to_owned).collect(),
        constraints: Constraints {
            subset: constraints.encryption_context_subset.into_iter().collect(),
            equals: constraints.encryption_context_equals.into_iter().collect(),
        },
        issuing_account: app.account(),
        token: hex::encode(rand::random::<[u8; 32]>()),
        created_at: crate::store::now(),
    };
    let constraints = &grant.constraints;
    if !constraints.subset.is_empty() && !constraints.equals.is_empty() {
        return Err(wrong(
            "Constraints have EncryptionContextSubset or EncryptionContextEquals, and not both.",
        ));
    }
    // Not everybody, as policies name by `*`.
    let named = [&grant.grantee, &grant.retiring];
    let is_named = named
        .iter()
        .all(|named| named.is_empty() || named.starts_with("arn:"));
    match is_named && iam::check_grant(&grant).is_ok() {
        true => Ok(grant),
        false => Err(ApiError::new(
            ErrorCode::InvalidArnException,
            "GranteePrincipal and RetiringPrincipal are the ARNs of users, roles, sessions of roles, or roots of accounts.",
        )),
    }
}

/// Whether a grant is what another one is but for what is random.
fn is_same(one: &KmsGrant, other: &KmsGrant) -> bool {
    let what = |grant: &KmsGrant| {
        let KmsGrant {
            grantee,
            retiring,
            operations,
            constraints,
            ..
        } = grant.clone();
        (grantee, retiring, operations, constraints)
    };
    what(one) == what(other)
}

/// One with the same name and content as another is that one.
pub(super) async fn create(app: &App, request: CreateGrantRequest) -> Result<CreateGrantResponse, ApiError> {
    let (grant, of) = {
        let state = app.state();
        let of = by_id(app, &state, &request.key_id)?;
        if of.is_managed {
            return Err(ApiError::new(
                ErrorCode::AccessDenied,
                format!("{} is managed by AWS: it has no grants.", of.arn()),
            ));
        }
        refuse_unusable(of)?;
        (asked(app, &request, of)?, of.arn())
    };
    let scope = app.scope();
    app.store
        .transact(move |tx| {
            // The key may be another account's.
            tx.act_for(Scope::new(&grant.account_id, &grant.region));
            refuse_unusable(&found(tx, &scope, &of)?)?;
            let named = Some(key(&[&grant.key_id, &grant.name])).filter(|_| !grant.name.is_empty());
            let before = named.and_then(|named| {
                tx.by(&KmsGrant::BY_NAME, &named)
                    .find(|before| is_same(before, &grant))
                    .cloned()
            });
            let told = before.as_ref().unwrap_or(&grant);
            let answer = CreateGrantResponse {
                grant_token: told.token.clone(),
                grant_id: told.id.clone(),
            };
            if before.is_none() {
                tx.audit(json!({ "key": of, "grant": grant.id, "grantee": grant.grantee, "operations": grant.operations }));
                tx.put(grant);
            }
            Ok(answer)
        })
        .await
}

fn tell(state: &State, grant: &KmsGrant) -> GrantListEntry {
    let Constraints { subset, equals } = &grant.constraints;
    let is_bound = !subset.is_empty() || !equals.is_empty();
    let pairs = |of: &std::collections::BTreeMap<String, String>| of.clone().into_iter().collect();
    GrantListEntry {
        key_id: state
            .of_anybody::<KmsKey>(&grant.key_id)
            .map_or_else(String::new, KmsKey::arn),
        grant_id: grant.id.clone(),
        name: grant.name.clone(),
        creation_date: Some(timestamp(grant.created_at)),
        grantee_principal: grant.grantee.clone(),
        retiring_principal: grant.retiring.clone(),
        issuing_account: format!("arn:aws:iam::{}:root", grant.issuing_account),
        operations: grant.operations.clone(),
        constraints: is_bound.then(|| GrantConstraints {
            encryption_context_subset: pairs(subset),
            encryption_context_equals: pairs(equals),
        }),
    }
}

fn listed<'s>(
    state: &'s State,
    grants: impl Iterator<Item = &'s KmsGrant>,
    limit: Option<i32>,
    marker: &str,
) -> Result<ListGrantsResponse, ApiError> {
    let of_id = |grant: &&KmsGrant| grant.id.clone();
    let (grants, next_marker) = page(grants, PAGE, limit, marker, of_id, |grant| tell(state, grant))?;
    Ok(ListGrantsResponse {
        grants,
        truncated: !next_marker.is_empty(),
        next_marker,
    })
}

pub(super) async fn list(app: &App, request: ListGrantsRequest) -> Result<ListGrantsResponse, ApiError> {
    let state = app.state();
    let of = by_id(app, &state, &request.key_id)?;
    let (id, grantee) = (&request.grant_id, &request.grantee_principal);
    let is_wanted = |grant: &&KmsGrant| {
        (id.is_empty() || *id == grant.id) && (grantee.is_empty() || *grantee == grant.grantee)
    };
    let wanted = state.grants_of(&of.id).filter(is_wanted);
    listed(&state, wanted, request.limit, &request.marker)
}

pub(super) async fn list_retirable(
    app: &App,
    request: ListRetirableGrantsRequest,
) -> Result<ListGrantsResponse, ApiError> {
    let retiring = &request.retiring_principal;
    if retiring.is_empty() {
        return Err(ApiError::missing("RetiringPrincipal"));
    }
    if retiring.split(':').nth(4).unwrap_or(retiring) != app.account() {
        let message = format!("{retiring} is nobody of this account.");
        return Err(ApiError::new(ErrorCode::AccessDenied, message));
    }
    let state = app.state();
    let wanted = state
        .all::<KmsGrant>()
        .filter(|grant| grant.retiring == *retiring);
    listed(&state, wanted, request.limit, &request.marker)
}

fn no_grant(id: &str) -> ApiError {
    not_found(format!("There is no grant {id:.128} of this key."))
}

async fn remove(app: &App, grant: &KmsGrant, how: &'static str) -> Result<(), ApiError> {
    let (id, of) = (grant.id.clone(), grant.key_id.clone());
    let scope = Scope::new(&grant.account_id, &grant.region);
    app.store
        .transact(move |tx| {
            tx.act_for(scope);
            match tx.remove::<KmsGrant>(&id) {
                true => tx.audit(json!({ how: id, "key": of })),
                false => return Err(no_grant(&id)),
            }
            Ok(())
        })
        .await
}

pub(super) async fn revoke(app: &App, request: RevokeGrantRequest) -> Result<RevokeGrantResponse, ApiError> {
    let grant = {
        let state = app.state();
        let of = by_id(app, &state, &request.key_id)?;
        let grant = state.grants_of(&of.id).find(|grant| grant.id == request.grant_id);
        grant.cloned().ok_or_else(|| no_grant(&request.grant_id))?
    };
    remove(app, &grant, "revoked").await?;
    Ok(RevokeGrantResponse {})
}

/// Whoever may retire a grant is asked for here, and not before: the grant itself says who it is.
pub(super) async fn retire(app: &App, request: RetireGrantRequest) -> Result<RetireGrantResponse, ApiError> {
    let grant = {
        let state = app.state();
        let grant = match (request.grant_token.as_str(), request.grant_id.as_str()) {
            ("", "") => return Err(ApiError::missing("GrantToken")),
            ("", id) => {
                let of = by_id(app, &state, &request.key_id)?;
                let found = state.grants_of(&of.id).find(|grant| grant.id == id);
                found.ok_or_else(|| no_grant(id))?
            }
            (token, _) => state.first_by(&KmsGrant::BY_TOKEN, token).ok_or_else(|| {
                ApiError::new(
                    ErrorCode::InvalidGrantTokenException,
                    "There is no grant with this token.",
                )
            })?,
        };
        let identity = Identity::current(&state, &app.account())?;
        if let Some(call) = Call::current()
            && let Some(denial) = iam::denial_to_retire(&state, &call, &identity, grant)?
        {
            return Err(denial.error(&app.vault, Service::Kms));
        }
        grant.clone()
    };
    remove(app, &grant, "retired").await?;
    Ok(RetireGrantResponse {})
}
