//! The policies of users, groups and roles: those in themselves, and managed ones.

use hearth_api::v1::AttachedPolicy;
use hearth_api::{ApiError, ErrorCode};
use hearth_iam::{Kind, Policy};
use serde_json::json;

use super::{check_name, delete_conflict, find, limit_exceeded, no_such};
use crate::app::App;
use crate::iam::managed;
use crate::state::{self, Bearer, State};

/// Managed policies of one bearer.
const MOST_ATTACHED: usize = 10;
/// Characters of all policies that one bearer has in itself, but for white space; and bytes with it.
const MOST_INLINE: usize = 10_240;
const MOST_INLINE_BYTES: usize = 131_072;

/// # Errors
/// `MalformedPolicyDocument`.
pub(super) fn check_document(kind: Kind, document: &str) -> Result<(), ApiError> {
    Policy::parse(kind, document)
        .map(drop)
        .map_err(|error| ApiError::new(ErrorCode::MalformedPolicyDocument, error.to_string()))
}

pub(super) async fn put<B: Bearer>(
    app: &App,
    bearer: String,
    name: String,
    document: String,
) -> Result<(), ApiError> {
    check_name("policyName", &name, 128)?;
    check_document(Kind::Identity, &document)?;
    change::<B, _>(app, bearer, move |bearer| {
        bearer.grants_mut().inline.insert(name, document);
        let documents = || bearer.grants().inline.values();
        let counted = documents().flat_map(|document| document.chars());
        let counted = counted.filter(|character| !character.is_whitespace()).count();
        if counted > MOST_INLINE || documents().map(String::len).sum::<usize>() > MOST_INLINE_BYTES {
            return Err(limit_exceeded("InlinePolicySize", MOST_INLINE));
        }
        Ok(())
    })
    .await
}

pub(super) fn get<B: Bearer>(app: &App, bearer: &str, name: &str) -> Result<String, ApiError> {
    let state = app.state();
    let bearer: &B = find(&state, &app.account(), bearer)?;
    let document = bearer.grants().inline.get(name).cloned();
    document.ok_or_else(|| no_policy::<B>(name))
}

pub(super) async fn delete<B: Bearer>(app: &App, bearer: String, name: String) -> Result<(), ApiError> {
    change::<B, _>(app, bearer, move |bearer| {
        match bearer.grants_mut().inline.remove(&name) {
            Some(_) => Ok(()),
            None => Err(no_policy::<B>(&name)),
        }
    })
    .await
}

pub(super) fn names<B: Bearer>(app: &App, bearer: &str) -> Result<Vec<String>, ApiError> {
    let state = app.state();
    let bearer: &B = find(&state, &app.account(), bearer)?;
    Ok(bearer.grants().inline.keys().cloned().collect())
}

pub(super) async fn attach<B: Bearer>(app: &App, bearer: String, arn: String) -> Result<(), ApiError> {
    if managed::of_arn(&arn).is_none()
        && app
            .state()
            .of_arn::<state::Policy>(&app.account(), &arn)
            .is_none()
    {
        return Err(no_such(format!(
            "Policy {arn} does not exist or is not attachable."
        )));
    }
    change::<B, _>(app, bearer, move |bearer| {
        bearer.grants_mut().attached.insert(arn);
        if bearer.grants().attached.len() > MOST_ATTACHED {
            return Err(limit_exceeded("PoliciesPerEntity", MOST_ATTACHED));
        }
        Ok(())
    })
    .await
}

pub(super) async fn detach<B: Bearer>(app: &App, bearer: String, arn: String) -> Result<(), ApiError> {
    change::<B, _>(app, bearer, move |bearer| {
        if bearer.grants_mut().attached.remove(&arn) {
            return Ok(());
        }
        Err(no_such(format!("Policy {arn} was not found.")))
    })
    .await
}

/// Managed policies of a bearer, below a path, by name.
pub(super) fn attached<B: Bearer>(
    app: &App,
    bearer: &str,
    prefix: &str,
) -> Result<Vec<AttachedPolicy>, ApiError> {
    let state = app.state();
    let bearer: &B = find(&state, &app.account(), bearer)?;
    let arns = bearer.grants().attached.iter();
    let mut told: Vec<_> = arns
        .filter(|arn| path_of(arn).starts_with(prefix))
        .map(|arn| AttachedPolicy {
            policy_name: arn.rsplit('/').next().unwrap_or_default().to_owned(),
            policy_arn: arn.clone(),
        })
        .collect();
    told.sort_by(|a, b| a.policy_name.cmp(&b.policy_name));
    Ok(told)
}

/// The path in a policy's ARN.
fn path_of(arn: &str) -> &str {
    let from = arn.find('/').unwrap_or(arn.len());
    let to = arn.rfind('/').map_or(from, |last| last + 1);
    &arn[from..to]
}

/// # Errors
/// `DeleteConflict`: the bearer still has policies.
pub(super) fn refuse_with_policies<B: Bearer>(bearer: &B) -> Result<(), ApiError> {
    if !bearer.grants().attached.is_empty() {
        return Err(delete_conflict("detach all policies"));
    }
    if !bearer.grants().inline.is_empty() {
        return Err(delete_conflict("delete policies"));
    }
    Ok(())
}

/// Changes the entity of a name in a transaction, which has an audit row.
pub(super) async fn change<E, F>(app: &App, name: String, change: F) -> Result<(), ApiError>
where
    E: state::Entity,
    F: FnOnce(&mut E) -> Result<(), ApiError> + Send + 'static,
{
    let account_id = app.account();
    app.store
        .transact(move |tx| {
            let found: &E = find(tx, &account_id, &name)?;
            let mut entity = found.clone();
            change(&mut entity)?;
            tx.audit(json!({ E::WORD: entity.arn() }));
            tx.put(entity);
            Ok(())
        })
        .await
}

fn no_policy<B: Bearer>(name: &str) -> ApiError {
    no_such(format!(
        "The {} policy with name {name} cannot be found.",
        B::NOUN
    ))
}

/// Users, groups and roles that have a managed policy.
pub(super) fn bearers<'s, B: Bearer>(
    state: &'s State,
    arn: &str,
) -> impl Iterator<Item = &'s B> + use<'s, B> {
    state.by(&B::BY_POLICY, arn)
}

/// The seven calls about the policies of a kind of bearer.
macro_rules! calls {
    ($bearer:ty, $name:ident: $put:ident, $get:ident -> $got:ident, $delete:ident, $list:ident -> $listed:ident,
     $attach:ident, $detach:ident, $attached:ident -> $told:ident,
     $puts:ident, $deletes:ident, $attaches:ident, $detaches:ident) => {
        mod policies {
            use hearth_api::ApiError;
            use hearth_api::v1::*;

            use crate::app::App;
            use crate::services::iam::{grants, pages::page};

            pub(super) async fn put(app: &App, request: $put) -> Result<$puts, ApiError> {
                grants::put::<$bearer>(
                    app,
                    request.$name,
                    request.policy_name,
                    request.policy_document,
                )
                .await?;
                Ok($puts {})
            }

            pub(super) async fn get(app: &App, request: $get) -> Result<$got, ApiError> {
                Ok($got {
                    policy_document: grants::get::<$bearer>(app, &request.$name, &request.policy_name)?,
                    policy_name: request.policy_name,
                    $name: request.$name,
                })
            }

            pub(super) async fn delete(app: &App, request: $delete) -> Result<$deletes, ApiError> {
                grants::delete::<$bearer>(app, request.$name, request.policy_name).await?;
                Ok($deletes {})
            }

            pub(super) async fn list(app: &App, request: $list) -> Result<$listed, ApiError> {
                let names = grants::names::<$bearer>(app, &request.$name)?;
                let (policy_names, is_truncated, marker) =
                    page(names, &request.marker, request.max_items, String::as_str)?;
                Ok($listed {
                    policy_names,
                    is_truncated,
                    marker,
                })
            }

            pub(super) async fn attach(app: &App, request: $attach) -> Result<$attaches, ApiError> {
                grants::attach::<$bearer>(app, request.$name, request.policy_arn).await?;
                Ok($attaches {})
            }

            pub(super) async fn detach(app: &App, request: $detach) -> Result<$detaches, ApiError> {
                grants::detach::<$bearer>(app, request.$name, request.policy_arn).await?;
                Ok($detaches {})
            }

            pub(super) async fn attached(app: &App, request: $attached) -> Result<$told, ApiError> {
                let policies = grants::attached::<$bearer>(app, &request.$name, &request.path_prefix)?;
                let (attached_policies, is_truncated, marker) =
                    page(policies, &request.marker, request.max_items, |policy| {
                        policy.policy_name.as_str()
                    })?;
                Ok($told {
                    attached_policies,
                    is_truncated,
                    marker,
                })
            }
        }
    };
}
pub(super) use calls;
